"""Whether what was answered is what had to be: no event lost, no text of another checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select

from app.rollout.database import Database
from app.rollout.evidence import MEASURES
from app.rollout.tables import COUNTS, EVENTS
from loadtest.fleet import OK, Fleet
from loadtest.history import Request, Swap, violations
from loadtest.incidents import Happened
from training.canary.processes import ProcessError

FOLLOWS_S = 2.0
"""Within which every replica knows of a rollback: REWRITE_ROLLOUT_POLL_S is at most one."""
Expected = dict[tuple[str, str], tuple[str, ...]]


def expectations(fleet: Fleet, queries: Sequence[str]) -> Expected:
    """Return what each checkpoint says to each query, asked one at a time; the first one serves then.

    Raises:
        ProcessError: a checkpoint cannot be asked.
    """
    server, expected = fleet.servers[0], Expected()
    for name in ("second", "first"):
        status, told = server.ask("/admin/checkpoints/activate", {"id": name})
        if status != OK:
            raise ProcessError(f"{name} was not activated: {told}")
        digest = fleet.checkpoints[name].weights_digest
        for query in queries:
            status, told = server.ask("/v1/rewrite", {"query": query, "deadline_ms": 60_000})
            if status != OK or told["checkpoint"]["weights_digest"] != digest:
                raise ProcessError(f"{name} did not answer {query!r}: {told}")
            expected[digest, query] = tuple(rewrite["text"] for rewrite in told["rewrites"])
    return expected


def told_apart(expected: Expected) -> float:
    """Return the share of the queries to which the checkpoints give different answers."""
    answers: dict[str, set[tuple[str, ...]]] = {}
    for (_, query), said in expected.items():
        answers.setdefault(query, set()).add(said)
    return sum(len(different) > 1 for different in answers.values()) / max(len(answers), 1)


def wrong_versions(
    history: Mapping[str, Sequence[Request]],
    happened: Sequence[Happened],
    checkpoints: Mapping[str, str],
    expected: Expected,
) -> Counter[str]:
    """Return how many answers broke which rule of `loadtest.history`; failures are availability's.

    Args:
        history: answers by arm.
        happened: what was done; swaps, and starts and ends of a rollout, change who may answer.
        checkpoints: digests by name; `first` serves at the start.
        expected: see `expectations`.
    """
    swaps = [
        Swap(one.start_s, one.end_s, checkpoints[one.incident.to])
        for one in happened
        if one.incident.do == "swap" and one.refused is None
    ]
    broken: Counter[str] = Counter()
    for arm, requests in history.items():
        told = [request for request in requests if request.reason not in _NOBODY_WROTE]
        first = checkpoints["second" if arm == "canary" else "first"]
        for one in violations(told, [] if arm == "canary" else swaps, first_digest=first, expected=expected):
            broken[one.rule] += 1
    for one in happened:
        if one.incident.do == "rollout_rollback" and one.refused is None:
            late = [r for r in history.get("canary", ()) if r.start_s > one.end_s + FOLLOWS_S]
            broken["the canary answered after it was taken back"] += len(late)
    return +broken


_NOBODY_WROTE = frozenset({"deadline", "engine_error", "engine_unavailable"})
"""Reasons of answers that no checkpoint had a part in: the original went back, and no text may be wrong."""


def stored_events(database: str, run: str) -> tuple[set[str], float]:
    """Return the ids of the run's events in the store, and how many clicks of any run it has counted."""
    opened = Database(database)
    try:
        with opened.begin() as connection:
            ids = set(connection.scalars(select(EVENTS.c.id).where(EVENTS.c.id.like(f"{run}-%"))))
            sums = [func.sum(COUNTS.c[name]) for name in MEASURES if name in {"clicks", "strict"}]
            counted = sum(float(value or 0.0) for value in connection.execute(select(*sums)).one())
            return ids, counted
    finally:
        opened.close()
