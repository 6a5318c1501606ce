"""What controllers saw when they looked, in the store: how confidence sequences grew. It blocks.

A look is kept where the canary's searches have grown by a fiftieth since the last one, or in a new step:
some 35 for each doubling, however long a rollout goes on. Nothing is decided by them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from app.rollout.database import Database
from app.rollout.tables import LOOKS
from app.rollout.verdict import Finding, Verdict

GROWTH = 1.02


@dataclass(frozen=True, slots=True)
class Look:
    """One look.

    Args:
        at: when.
        step: of the rollout, from 0.
        searches: of the canary so far, over all steps.
        action: of the verdict.
        why: likewise.
        findings: of each metric, the goal first, as `facts_of` has them.
    """

    at: datetime
    step: int
    searches: float
    action: str
    why: str
    findings: Sequence[dict[str, Any]]


class LookStore:
    """Looks. Every method raises StoreError where the database is out of reach."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: tuple[int, int, float] | None = None

    def keep(self, rollout: int, step: int, searches: float, verdict: Verdict, at: datetime) -> None:
        """Keep a look, unless hardly anything has come since the last one that was kept here."""
        if searches <= 0 or (
            self._last is not None and self._last[:2] == (rollout, step) and searches < GROWTH * self._last[2]
        ):
            return
        row = {
            "rollout": rollout,
            "step": step,
            "searches": searches,
            "at": at.timestamp(),
            "action": verdict.action,
            "why": verdict.why,
            "findings": json.dumps([facts_of(one) for one in verdict.findings]),
        }
        with self._database.begin() as connection:
            # The same searches are the same evidence: another controller may have seen it before.
            connection.execute(self._database.insert(LOOKS).values(row).on_conflict_do_nothing())
        self._last = rollout, step, searches

    def of(self, rollout: int) -> list[Look]:
        """Return those of a rollout, the first one first."""
        with self._database.begin() as connection:
            rows = connection.execute(
                select(LOOKS).where(LOOKS.c.rollout == rollout).order_by(LOOKS.c.step, LOOKS.c.searches)
            ).all()
        return [
            Look(
                datetime.fromtimestamp(row.at, UTC),
                row.step,
                row.searches,
                row.action,
                row.why,
                json.loads(row.findings),
            )
            for row in rows
        ]


def facts_of(one: Finding) -> dict[str, Any]:
    """Return what JSON says of a finding; an end that there is not is null."""
    return {
        "metric": one.metric,
        "gain": one.gain,
        "low": finite(one.promise.low),
        "high": finite(one.harm.high),
        "harmful": one.harmful,
        "harmless": one.harmless,
    }


def finite(value: float) -> float | None:
    """Return a number, or None for an infinity, which JSON does not have."""
    return value if abs(value) < float("inf") else None
