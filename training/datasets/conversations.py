"""Conversational turns (TREC CAsT, iKAT, CQR) -> the turn as a person would ask it alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from app.contracts.prompt import MAX_PREVIOUS_QUERIES, Context
from training.datasets.examples import Example, read_jsonl

VALIDATION_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn, the user's utterances before it (oldest first), and the human rewrites."""

    query: str
    previous: tuple[str, ...]
    rewrites: tuple[str, ...]
    source: str
    conversation: str

    @property
    def validation(self) -> bool:
        """Whether this turn of the training file is kept for calibration (whole conversations are)."""
        digest = hashlib.sha256(self.conversation.encode()).hexdigest()
        return int(digest[:8], 16) % 100 < VALIDATION_PERCENT

    @property
    def context(self) -> Context:
        """The newest utterances, as a client would send them."""
        return Context(previous_queries=self.previous[-MAX_PREVIOUS_QUERIES:])


def read_turns(path: Path) -> list[Turn]:
    """Read a file of turns; system utterances are left out (a client sends earlier queries only)."""
    return [
        Turn(
            query=row["query"],
            previous=tuple(said["text"] for said in row["history"] if said["role"] == "user"),
            rewrites=tuple(row["rewrite"]),
            source=row["source"],
            conversation=row["conversation"],
        )
        for row in read_jsonl(path)
    ]


class Conversations:
    """Draws turns uniformly, and one of a turn's rewrites by chance."""

    def __init__(self, turns: list[Turn]) -> None:
        self._turns = turns

    def draw(self, rng: Random) -> Example:
        """Draw one turn."""
        turn = rng.choice(self._turns)
        return Example(query=turn.query, target=rng.choice(turn.rewrites), context=turn.context)
