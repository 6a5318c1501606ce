"""Counts searches and events in this replica, and hands them to the store from time to time.

A search is counted when it is answered, and lies in memory until the store has it: so much a crash may lose.
An event is acknowledged only when the store has it: one that is not comes again, and counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Protocol

import numpy as np

from app.contracts.reasons import FALLBACKS
from app.errors import OverloadedError, StoreError
from app.rewrite.answer import Answer
from app.rewrite.cache import LruCache
from app.rollout.evidence import MEASURES, Cell
from app.rollout.exposure import seal, unseal
from app.rollout.statistics import Floats
from app.telemetry import LOGGER

Action = Literal["changed", "clicks", "strict"]
MAX_EVENTS = 50_000
"""That may wait for one flush."""


class Counts(Protocol):
    """The part of `app.rollout.counts.CountStore` that is written to."""

    def take(
        self, events: Mapping[str, tuple[Cell, Floats]], counts: Mapping[Cell, Floats], at: datetime
    ) -> int:
        """See there."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a user did after a search.

    Args:
        id: of the event: whatever comes twice under it counts once.
        query_id: of the search.
        action: what counts of it; None: nothing.
        token: that came with the answer; "" where the sender has lost it.
    """

    id: str
    query_id: str
    action: Action | None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of events, in numbers.

    Args:
        accepted: the store has them, now or since they came before.
        ignored: their action counts for nothing.
        unknown: no search is known that they would belong to.
    """

    accepted: int = 0
    ignored: int = 0
    unknown: int = 0


@dataclass(slots=True)
class _Batch:
    """What waits for a flush; `done` when the store has it, or with why it has not."""

    done: asyncio.Future[None]
    counts: dict[Cell, Floats] = field(default_factory=dict)
    events: dict[str, tuple[Cell, Floats]] = field(default_factory=dict)

    def add(self, counts: Mapping[Cell, Floats]) -> None:
        for cell, values in counts.items():
            self.counts[cell] = self.counts.get(cell, 0.0) + values


class Counter:
    """Lives on one event loop. `run` flushes until it is cancelled; `close` flushes what is left.

    Args:
        store: where counts go.
        key: of the tokens.
        memory: query_id -> where it counts: a search that several calls belong to is one, and events without
            a token find it in the replica that has answered it.
        now: the time of day, by the store's clock; it blocks. Raises StoreError.
        flush_s: seconds within which what was counted is in the store: it is flushed twice in each, which
            leaves a flush half of them.
        on_known: called with how many events of a flush had come before.
    """

    def __init__(
        self,
        store: Counts,
        *,
        key: bytes,
        memory: LruCache[str, Cell],
        now: Callable[[], datetime],
        flush_s: float,
        on_known: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self._store, self._key, self._memory = store, key, memory
        self._now, self._flush_s, self._on_known = now, flush_s, on_known
        self._waiting: _Batch | None = None
        self._flushing: asyncio.Future[None] | None = None

    def saw(self, cell: Cell, query_id: str, *, fallback: bool, seconds: float) -> str:
        """Count a search, once for each query_id; return its token."""
        known = self._memory.get(query_id)
        if known is None:
            self._memory.put(query_id, cell)
            values = _counted("searches")
            values[MEASURES.index("fallback")] = float(fallback)
            values[MEASURES.index("latency_s")] = seconds
            self._batch().add({cell: values})
        return seal(known or cell, query_id, self._key)

    async def take(self, events: Sequence[Event]) -> Taken:
        """Count events; returns when the store has them.

        Raises:
            OverloadedError: too many wait already.
            StoreError: the store has not taken them; they are to be sent again.
        """
        batch, unknown, ignored = self._batch(), 0, 0
        if len(batch.events) + len(events) > MAX_EVENTS:
            raise OverloadedError(f"{len(batch.events)} events wait for the store")
        mine: dict[str, tuple[Cell, Floats]] = {}
        for event in events:
            cell = unseal(event.token, event.query_id, self._key) or self._memory.get(event.query_id)
            if event.action is None:
                ignored += 1
            elif cell is None:
                unknown += 1
            else:
                mine[event.id] = cell, _counted(event.action)
        batch.events |= mine
        if mine:
            await asyncio.shield(batch.done)
        return Taken(len(events) - ignored - unknown, ignored, unknown)

    async def run(self) -> None:
        """Flush, and again, until cancelled: by the clock, however long the last one took."""
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            due = max(due + self._flush_s / 2, now())
            await asyncio.sleep(due - now())
            await self.flush()

    async def close(self) -> None:
        """Flush what is left, when what is being flushed has been."""
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Hand what waits to the store. What it does not take waits for the next time, events aside.

        It goes on when the caller is cancelled: the store may have the half of it.
        """
        self._flushing = asyncio.ensure_future(self._flush())
        await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting, None
        if batch is None:
            return
        try:
            known = await asyncio.to_thread(self._hand_over, batch)
        except Exception as error:  # noqa: BLE001 -- no memory, no thread: the next flush may have some
            why = error if isinstance(error, StoreError) else StoreError(f"counts were not taken: {error!r}")
            LOGGER.warning("counts were not taken", extra={"fields": {"detail": str(why)}})
            self._batch().add(batch.counts)
            batch.done.set_exception(why)
            batch.done.exception()  # retrieved: there may be nobody who waits for it
        else:
            self._on_known(known)
            batch.done.set_result(None)

    def _hand_over(self, batch: _Batch) -> int:
        return self._store.take(batch.events, batch.counts, self._now())

    def _batch(self) -> _Batch:
        if self._waiting is None:
            self._waiting = _Batch(asyncio.get_running_loop().create_future())
        return self._waiting


def counted(counter: Counter, answer: Answer) -> Answer:
    """Count the search of an answer; return the answer with its token."""
    if answer.cell is None:
        return answer
    token = counter.saw(
        answer.cell,
        answer.query.query_id,
        fallback=answer.reason in FALLBACKS,
        seconds=answer.timings.total_s,
    )
    return replace(answer, exposure=token)


def _counted(measure: str) -> Floats:
    values = np.zeros(len(MEASURES))
    values[MEASURES.index(measure)] = 1.0
    return values
