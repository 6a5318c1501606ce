"""Continuous batching: requests join and leave between steps, and a failure stays with those it met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.engines.decoding import Continuation, Decoder, Hypothesis
    from app.engines.scores import Scores

T = TypeVar("T")

RUN_COST_TOKENS = 16
"""What starting a run costs, in tokens of prompt: measured at 2 ms a run and 0.12 ms a token."""


class Backend(Protocol):
    """A decoder's arithmetic over numbered slots, each holding the cached tokens of one row."""

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> Scores:
        """Read prompts into consecutive slots; returns the scores of each one's next token."""

    def decode(self, token_ids: Sequence[int], lengths: Sequence[int]) -> Scores:
        """Append one token to each of slots 0..n-1, of these lengths so far; returns the next scores."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""


@dataclass(slots=True)
class Entry(Generic[T]):
    """One request in the batch: its decoder, the most rows it can take, and its owner's `tag`."""

    tag: T
    prompt: list[int]
    decoder: Decoder
    max_rows: int
    length: int = 0
    slots: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)

    def follow(self, continuations: list[Continuation]) -> None:
        """Let each continuation stand in its parent's slot until the rows are placed."""
        self.slots = [self.slots[row] for row, _ in continuations]
        self.token_ids = [token for _, token in continuations]


Outcome = tuple[T, "list[Hypothesis] | Exception"]


def place(parents: Sequence[int]) -> list[int]:
    """Slots for rows that continue these slots: exactly 0..n-1, as many rows as possible left where they are.

    A row that moves goes to a slot that no row continues, so the copies may be made in any order.
    """
    count = len(parents)
    taken: set[int] = set()
    slots = [-1] * count
    for i, parent in enumerate(parents):
        if parent < count and parent not in taken:
            slots[i] = parent
            taken.add(parent)
    free = iter([slot for slot in range(count) if slot not in taken])
    return [slot if slot >= 0 else next(free) for slot in slots]


def similar_lengths(entries: Sequence[Entry[T]]) -> list[list[Entry[T]]]:
    """Groups to read in one run each: a prompt joins one while that pads less than a run of its own costs."""
    groups: list[list[Entry[T]]] = []
    for entry in sorted(entries, key=lambda entry: len(entry.prompt)):
        if groups:
            padding = len(groups[-1]) * (len(entry.prompt) - len(groups[-1][-1].prompt))
            if padding <= RUN_COST_TOKENS:
                groups[-1].append(entry)
                continue
        groups.append([entry])
    return groups


class Batch(Generic[T]):
    """The sequences that run now, in at most `max_rows` rows. Not thread-safe: one thread steps it."""

    def __init__(self, backend: Backend, *, max_rows: int) -> None:
        self._backend = backend
        self._max_rows = max_rows
        self._running: list[Entry[T]] = []

    def __len__(self) -> int:
        """How many sequences run."""
        return len(self._running)

    def fits(self, rows: int) -> bool:
        """Whether a sequence of `rows` rows can join: what runs may still grow to all it reserved."""
        return rows + sum(entry.max_rows for entry in self._running) <= self._max_rows

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Forget the sequences whose tag is unwanted; their rows are free at once."""
        self._running = [entry for entry in self._running if not unwanted(entry.tag)]

    def clear(self) -> list[T]:
        """Forget every sequence; returns their tags."""
        tags = [entry.tag for entry in self._running]
        self._running = []
        return tags

    def join(self, entries: list[Entry[T]]) -> list[Outcome[T]]:
        """Read the prompts and choose each first token; returns what is finished by that, or failed."""
        first = len(self._place(self._running))
        outcomes: list[Outcome[T]] = []
        for group in similar_lengths(entries):
            try:
                scores = self._backend.prefill(first, [entry.prompt for entry in group])
            except Exception as error:  # noqa: BLE001 - whatever it was, it is this group's alone
                outcomes += [(entry.tag, error) for entry in group]
                continue
            for slot, entry in enumerate(group, first):
                entry.slots, entry.length = [slot], len(entry.prompt)
            first += len(group)
            outcomes += self._advance([(entry, scores.take([i])) for i, entry in enumerate(group)])
        return outcomes

    def step(self) -> list[Outcome[T]]:
        """One token for every row; returns what finished, or failed with the exception it met."""
        if not self._running:
            return []
        stepping, self._running = self._running, []
        try:
            scores = self._decode(stepping)
        except Exception as error:  # noqa: BLE001 - every row of this step is suspect, none of another
            return [(entry.tag, error) for entry in stepping]
        return self._advance([(entry, scores.take(entry.slots)) for entry in stepping])

    def _advance(self, scored: list[tuple[Entry[T], Scores]]) -> list[Outcome[T]]:
        """Let every decoder choose from the scores of its rows; those that go on run."""
        outcomes: list[Outcome[T]] = []
        for entry, scores in scored:
            try:
                entry.follow(entry.decoder.advance(scores))
            except Exception as error:  # noqa: BLE001 - a decoder fails for its own request only
                outcomes.append((entry.tag, error))
                continue
            if entry.slots:
                self._running.append(entry)
            else:
                outcomes.append((entry.tag, entry.decoder.results()))
        return outcomes

    def _place(self, entries: list[Entry[T]]) -> list[int]:
        """Give every row a slot of its own, 0..n-1, by copying; returns them in the order of the rows."""
        rows = [(entry, i) for entry in entries for i in range(len(entry.slots))]
        slots = place([entry.slots[i] for entry, i in rows])
        for (entry, i), slot in zip(rows, slots, strict=True):
            if entry.slots[i] != slot:
                self._backend.copy(entry.slots[i], slot, entry.length)
                entry.slots[i] = slot
        return slots

    def _decode(self, stepping: list[Entry[T]]) -> Scores:
        """Place the rows and run the step; a row's scores are at its slot."""
        slots = self._place(stepping)
        rows = [(token, entry.length) for entry in stepping for token in entry.token_ids]
        token_ids, lengths = [0] * len(rows), [0] * len(rows)
        for slot, (token, length) in zip(slots, rows, strict=True):
            token_ids[slot], lengths[slot] = token, length
        scores = self._backend.decode(token_ids, lengths)
        for entry in stepping:
            entry.length += 1
        return scores
