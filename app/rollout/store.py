"""Rollouts and the kill switch, in the store. It blocks.

Nothing is changed in place: transitions and switches are numbered lines, and who adds one names the number
after the last that they have seen. Of two at once one gets it, and the other is told to look again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Connection, func, select

from app.contracts.manifest import Digest
from app.errors import RolloutError
from app.rollout.database import Database
from app.rollout.plan import Plan
from app.rollout.state import Deployment, Rollout, State, Switch, Transition
from app.rollout.tables import ROLLOUTS, SWITCHES, TRANSITIONS


class RolloutStore:
    """Rollouts and the kill switch. Every method raises StoreError where the database is out of reach."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def deployment(self) -> Deployment:
        """Return what is to be followed now."""
        with self._database.begin() as connection:
            newest = select(func.max(ROLLOUTS.c.number)).scalar_subquery()
            promoted = (
                select(func.max(TRANSITIONS.c.rollout))
                .where(TRANSITIONS.c.state == "promoted")
                .scalar_subquery()
            )
            found = {
                row.number: _rollout(connection, row)
                for row in connection.execute(
                    select(ROLLOUTS).where(ROLLOUTS.c.number.in_((newest, promoted)))
                )
            }
            row = connection.execute(select(SWITCHES).order_by(SWITCHES.c.number.desc()).limit(1)).first()
            numbers = connection.execute(select(newest, promoted)).one()
            latest, stable = (found.get(number) for number in numbers)
            return Deployment(latest, stable, None if row is None else _switch(row))

    def rollouts(self) -> list[Rollout]:
        """Return all, the first one first."""
        with self._database.begin() as connection:
            rows = connection.execute(select(ROLLOUTS).order_by(ROLLOUTS.c.number)).all()
            return [_rollout(connection, row) for row in rows]

    def history(self, rollout: int) -> list[Transition]:
        """Return all transitions of a rollout, the first one first."""
        with self._database.begin() as connection:
            rows = connection.execute(
                select(TRANSITIONS).where(TRANSITIONS.c.rollout == rollout).order_by(TRANSITIONS.c.number)
            ).all()
            return [_transition(row) for row in rows]

    def start(
        self, name: str, checkpoint: Digest, plan: Plan, *, who: str, why: str, at: datetime
    ) -> Rollout:
        """Start a rollout; it is preparing.

        Raises:
            RolloutError: another one is live, or its name was used before.
        """
        latest = self.deployment().latest
        if latest is not None and latest.is_live:
            raise RolloutError(f"{latest.id} is {latest.last.state}: one rollout at a time")
        number = latest.number + 1 if latest else 1
        first = Transition(1, at, who, "start", "preparing", 0, why)
        with self._database.begin(
            conflict=f"another rollout was started meanwhile, or {name} is not a new name"
        ) as connection:
            connection.execute(
                ROLLOUTS.insert().values(
                    number=number, id=name, checkpoint=checkpoint, plan=plan.model_dump_json()
                )
            )
            connection.execute(TRANSITIONS.insert().values(**_values(number, first)))
        return Rollout.of(number, name, checkpoint, plan, [first])

    def move(self, rollout: Rollout, transition: Transition) -> None:
        """Add a transition to a rollout.

        Raises:
            RolloutError: it has moved since it was looked at; nothing is changed.
        """
        with self._database.begin(conflict=f"{rollout.id} has moved meanwhile; look again") as connection:
            connection.execute(TRANSITIONS.insert().values(**_values(rollout.number, transition)))

    def switch(self, *, killed: bool, who: str, why: str, at: datetime) -> Switch:
        """Throw the kill switch, or take it back; it takes effect whoever else does the same."""
        while True:
            seen = self.deployment().switch
            line = Switch(seen.number + 1 if seen else 1, at, who, killed, why)
            try:
                with self._database.begin(conflict="") as connection:
                    connection.execute(
                        SWITCHES.insert().values(
                            number=line.number, at=at.timestamp(), who=who, killed=killed, why=why
                        )
                    )
            except RolloutError:
                continue
            return line

    def switches(self) -> list[Switch]:
        """Return how often the kill switch was thrown or taken back, the first time first."""
        with self._database.begin() as connection:
            rows = connection.execute(select(SWITCHES).order_by(SWITCHES.c.number)).all()
            return [_switch(row) for row in rows]


def _rollout(connection: Connection, row: Any) -> Rollout:
    lines = [
        _transition(line)
        for line in connection.execute(
            select(TRANSITIONS).where(TRANSITIONS.c.rollout == row.number).order_by(TRANSITIONS.c.number)
        )
    ]
    return Rollout.of(row.number, row.id, row.checkpoint, Plan.model_validate_json(row.plan), lines)


def _transition(row: Any) -> Transition:
    at = datetime.fromtimestamp(row.at, UTC)
    return Transition(row.number, at, row.who, row.order, cast("State", row.state), row.step, row.why)


def _values(rollout: int, line: Transition) -> dict[str, Any]:
    return {
        "rollout": rollout,
        "number": line.number,
        "at": line.at.timestamp(),
        "who": line.who,
        "order": line.order,
        "state": line.state,
        "step": line.step,
        "why": line.why,
    }


def _switch(row: Any) -> Switch:
    return Switch(row.number, datetime.fromtimestamp(row.at, UTC), row.who, row.killed, row.why)
