"""What was counted, in the store: sums by bucket, added up by the database, and events, taken once by id.

Both in one transaction: a batch counts whole or not at all, and once. It blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, delete, func, select

from app.rollout.assignment import BUCKETS
from app.rollout.database import Database, unlisted
from app.rollout.evidence import MEASURES, Cell, Traffic
from app.rollout.statistics import Floats
from app.rollout.tables import COUNTS, EVENTS


class CountStore:
    """Counts and events. Every method raises StoreError where the database is out of reach."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(
        self, events: Mapping[str, tuple[Cell, Floats]], counts: Mapping[Cell, Floats], at: datetime
    ) -> int:
        """Add counts, and events that are new; return how many of these were known already.

        Args:
            events: by id, where each counts and what, [MEASURES].
            counts: of searches, likewise.
            at: now.
        """
        moment = at.timestamp()
        with self._database.begin() as connection:
            new = self._new(connection, events, moment)
            whole: dict[Cell, Floats] = dict(counts)
            for event in new:
                cell, values = events[event]
                whole[cell] = whole.get(cell, 0.0) + values
            rows = [
                {
                    "rollout": cell.rollout,
                    "step": cell.step,
                    "impacted": cell.impacted,
                    "bucket": cell.bucket,
                    "counted_at": moment,
                    **dict(zip(MEASURES, map(float, values), strict=True)),
                }
                # Always in the same order, so that replicas wait for each other's rows and never in a ring.
                for cell, values in sorted(whole.items(), key=lambda item: _order(item[0]))
            ]
            if rows:
                insert = self._database.insert(COUNTS)
                sums = {name: COUNTS.c[name] + insert.excluded[name] for name in MEASURES}
                keys = list(COUNTS.primary_key.columns)
                changes = {**sums, "counted_at": insert.excluded.counted_at}
                connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes), rows)
        return len(events) - len(new)

    def sums(self, rollout: int, *, step: int | None = None) -> dict[int, dict[Traffic, Floats]]:
        """Return what was counted, by step: [BUCKETS, MEASURES] of all searches, and of the impacted ones.

        `step` is the only one that is asked for; None: all of them.
        """
        kinds = COUNTS.c.step, COUNTS.c.impacted
        # Each column as one list: tens of thousands of rows, one by one, would hold up requests meanwhile.
        lists = [self._database.listed(COUNTS.c[name]) for name in ("bucket", *MEASURES)]
        asked = select(*kinds, *lists).where(COUNTS.c.rollout == rollout).group_by(*kinds)
        if step is not None:
            asked = asked.where(COUNTS.c.step == step)
        found: dict[int, dict[Traffic, Floats]] = {}
        with self._database.begin() as connection:
            for place, impacted, *columns in connection.execute(asked):
                if place not in found:
                    shape = (BUCKETS, len(MEASURES))
                    found[place] = {"all": np.zeros(shape), "impacted": np.zeros(shape)}
                buckets, *values = (unlisted(column) for column in columns)
                sums = np.array(values, float).T
                found[place]["all"][buckets] += sums
                if impacted:
                    found[place]["impacted"][buckets] += sums
        return found

    def counted_at(self, rollout: int) -> datetime | None:
        """Return when anything of a rollout was last counted."""
        with self._database.begin() as connection:
            moment = connection.scalar(
                select(func.max(COUNTS.c.counted_at)).where(COUNTS.c.rollout == rollout)
            )
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    def forget_events(self, before: datetime, *, most: int) -> int:
        """Forget the ids of at most so many events that were taken before a moment; return how many."""
        old = select(EVENTS.c.id).where(EVENTS.c.at < before.timestamp()).limit(most)
        with self._database.begin() as connection:
            return connection.execute(delete(EVENTS).where(EVENTS.c.id.in_(old))).rowcount

    def _new(self, connection: Connection, events: Iterable[str], moment: float) -> Sequence[str]:
        rows = [{"id": event, "at": moment} for event in sorted(events)]
        if not rows:
            return ()
        taken = self._database.insert(EVENTS).on_conflict_do_nothing().returning(EVENTS.c.id)
        return list(connection.scalars(taken, rows))


def _order(cell: Cell) -> tuple[int, int, bool, int]:
    return cell.rollout, cell.step, cell.impacted, cell.bucket
