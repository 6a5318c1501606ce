"""Who takes part: replicas, by their heartbeats, and the one that holds a lease. In the store; it blocks."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select

from app.contracts.manifest import Digest
from app.rollout.database import Database
from app.rollout.tables import LEASES, REPLICAS

ALIVE = timedelta(seconds=10)
"""A replica that was not heard of for so long is none."""


class Members:
    """Replicas and leases. Every method raises StoreError where the database is out of reach."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, replica: str, loaded: Digest | None, at: datetime) -> None:
        """Say that a replica lives, and which checkpoint it could give to the canary's clients."""
        with self._database.begin() as connection:
            insert = self._database.insert(REPLICAS).values(id=replica, seen_at=at.timestamp(), loaded=loaded)
            changes = {"seen_at": insert.excluded.seen_at, "loaded": insert.excluded.loaded}
            connection.execute(insert.on_conflict_do_update(index_elements=[REPLICAS.c.id], set_=changes))

    def replicas(self, at: datetime) -> dict[str, Digest | None]:
        """Return the replicas that live at a moment, which is now, and what each has loaded for the canary.

        What has lived long after it has lived by a clock that was set back since.
        """
        lived = REPLICAS.c.seen_at.between((at - ALIVE).timestamp(), (at + ALIVE).timestamp())
        with self._database.begin() as connection:
            rows = connection.execute(select(REPLICAS).where(lived)).all()
            return {row.id: row.loaded for row in rows}

    def hold(self, lease: str, holder: str, *, at: datetime, until: datetime) -> bool:
        """Take a lease, or keep it; False: another holds it.

        All who want it want it for as long, so one that ends later than this one would was taken by a clock
        that was set back since, and holds nobody up.
        """
        with self._database.begin() as connection:
            insert = self._database.insert(LEASES).values(name=lease, holder=holder, until=until.timestamp())
            taken = insert.on_conflict_do_update(
                index_elements=[LEASES.c.name],
                set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
                where=(LEASES.c.holder == holder)
                | ~LEASES.c.until.between(at.timestamp(), until.timestamp()),
            ).returning(LEASES.c.holder)
            return connection.execute(taken).first() is not None
