from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from app.errors import StoreError
from app.rollout.controller import decide_and_tell
from app.rollout.state import Transition

MOVED = Transition(2, datetime(2026, 11, 22, tzinfo=UTC), "controller", "begin", "running", 0, "x")


@dataclass
class FakeController:
    """Makes of a decision what it is told to."""

    outcome: Transition | Exception | None

    def decide(self) -> Transition | None:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(None, "none"), (MOVED, "moved"), (StoreError("out of reach"), "failed"), (MemoryError(), "failed")],
    ids=["none", "moved", "store", "memory"],
)
def test_whatever_comes_of_a_decision_is_told_and_is_not_the_end(
    outcome: Transition | Exception | None, told: str
) -> None:
    heard: list[str] = []
    decide_and_tell(FakeController(outcome), heard.append)  # type: ignore[arg-type]
    assert heard == [told]
