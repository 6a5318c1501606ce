"""Decides on the live rollout: reads what was counted, asks for a verdict, does what it says. It blocks.

Of many that run one decides, who holds the lease; and should two believe that they do, each transition has
one winner. A controller that is gone decides nothing: the share stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from app.errors import CorewriteError, RolloutError, StoreError
from app.rollout.assignment import BUCKETS
from app.rollout.counts import CountStore
from app.rollout.evidence import CANARY, MEASURES, Period, Traffic
from app.rollout.looks import LookStore
from app.rollout.members import Members
from app.rollout.state import Order, Rollout, Transition, after
from app.rollout.statistics import Floats
from app.rollout.store import RolloutStore
from app.rollout.verdict import Moment, Verdict, judge
from app.telemetry import LOGGER

LEASE = "controller"
KNOWN_FOR = timedelta(days=7)
"""An event that comes again within this time counts once."""
FORGET_S = 3600.0
FORGET_MOST = 10_000
"""Far fewer than a statement has time for, and far more than come between two decisions."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """How clients are dealt in this deployment; see `app.rollout.assignment.Split`."""

    salt: str
    holdout_ratio: float


class Controller:
    """One that may decide.

    Args:
        store: of rollouts.
        counts: what was counted.
        members: replicas, and the lease.
        looks: where what it saw is kept.
        dealt: how clients are.
        name: of this one, among those that may.
        now: the time of day, by the store's clock.
        clock: seconds that only go forward.
        lease_s: seconds for which a lease is taken, and taken again with each decision.
        on_promoted: told of what is stable now, once by each controller that sees it; raises CorewriteError
            where it is to be told again.
    """

    def __init__(
        self,
        *,
        store: RolloutStore,
        counts: CountStore,
        members: Members,
        looks: LookStore,
        dealt: Dealt,
        name: str,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        lease_s: float,
        on_promoted: Callable[[Rollout], object] = lambda _rollout: None,
    ) -> None:
        self._store, self._counts, self._members, self._looks = store, counts, members, looks
        self._dealt, self._name, self._now, self._clock = dealt, name, now, clock
        self._lease_s, self._on_promoted = lease_s, on_promoted
        self._told: int | None = None
        self._seen: tuple[float, Verdict] | None = None
        self._forgotten: float | None = None
        self._watches: dict[tuple[int, str], tuple[float, float]] = {}

    def decide(self) -> Transition | None:
        """Decide once; return the transition that was made.

        Raises:
            StoreError: the store is out of reach.
        """
        at = self._now()
        until = at + timedelta(seconds=self._lease_s)
        if not self._members.hold(LEASE, self._name, at=at, until=until):
            return None
        deployment = self._store.deployment()
        rollout, made = deployment.latest, None
        if rollout is not None and rollout.is_live:
            self._seen = None
            order, why = self._order(rollout)
            made = None if order is None else self._moved(rollout, order, why, at)
            self._keep(rollout, at)
        # Last, as what is kept: this decision waits neither for a bucket that hangs nor for a large table.
        self._forget(at)
        self._tell(deployment.promoted)
        return made

    def _moved(self, rollout: Rollout, order: Order, why: str, at: datetime) -> Transition | None:
        made = after(rollout, order, who=LEASE, why=why, at=at)
        try:
            self._store.move(rollout, made)
        except RolloutError as error:  # somebody else was faster; what they made of it is seen next time
            LOGGER.warning("rollout not moved", extra={"fields": {"detail": str(error)}})
            return None
        LOGGER.warning("rollout moved", extra={"fields": {"detail": f"{rollout.id}: {made.state}, {why}"}})
        return made

    def verdict(self, rollout: Rollout) -> Verdict:
        """Return what is to be done with a live rollout by what was counted so far."""
        moment = Moment(
            step=rollout.last.step,
            in_step_s=self._elapsed(rollout, "step", rollout.entered),
            in_rollout_s=self._elapsed(rollout, "rollout", rollout.started),
            data_age_s=data_age_s(self._counts, rollout, self._now()),
            paused=rollout.last.state == "paused",
        )
        periods = periods_of(self._counts, rollout, self._dealt)
        verdict = judge(rollout.plan, periods, moment)
        self._seen = sum(period.searches(CANARY) for period in periods), verdict
        return verdict

    def _keep(self, rollout: Rollout, at: datetime) -> None:
        if self._seen is None:
            return
        try:
            self._looks.keep(rollout.number, rollout.last.step, *self._seen, at)
        except StoreError as error:
            LOGGER.warning("rollouts: look not kept", extra={"fields": {"detail": str(error)}})

    def _forget(self, at: datetime) -> None:
        """Once in a while the ids of events that nobody will send again; of many, some with each decision."""
        if self._forgotten is not None and self._clock() - self._forgotten < FORGET_S:
            return
        try:
            forgotten = self._counts.forget_events(at - KNOWN_FOR, most=FORGET_MOST)
        except StoreError as error:
            LOGGER.warning("rollouts: events not forgotten", extra={"fields": {"detail": str(error)}})
        else:
            self._forgotten = self._clock() if forgotten < FORGET_MOST else None

    def _tell(self, promoted: Rollout | None) -> None:
        if promoted is None or promoted.number == self._told:
            return
        try:
            self._on_promoted(promoted)
        except CorewriteError as error:
            LOGGER.warning("aliases not moved", extra={"fields": {"detail": str(error)}})
        else:
            self._told = promoted.number

    def _order(self, rollout: Rollout) -> tuple[Order | None, str]:
        if rollout.last.state == "preparing":
            return self._ready(rollout)
        verdict = self.verdict(rollout)
        if verdict.action == "rollback":
            return "rollback", verdict.why
        if verdict.action == "promote" and rollout.last.state == "running":
            return "promote", verdict.why
        return None, verdict.why

    def _ready(self, rollout: Rollout) -> tuple[Order | None, str]:
        waited = self._elapsed(rollout, "preparing", rollout.started)
        if waited > rollout.plan.max_s:
            return "rollback", f"not every replica has loaded it after {rollout.plan.max_s:g} s"
        replicas = self._members.replicas(self._now())
        missing = [name for name, loaded in replicas.items() if loaded != rollout.checkpoint]
        if waited < rollout.plan.prepare_s or missing or not replicas:
            return None, f"{len(missing)} of {len(replicas)} replicas have not loaded it"
        return "begin", f"{len(replicas)} replicas have loaded it"

    def _elapsed(self, rollout: Rollout, what: str, since: datetime) -> float:
        """Seconds since a moment, whatever is done to the clock on the wall after it was first asked for."""
        key = rollout.number, f"{what} {since.timestamp()}"
        if key not in self._watches:
            self._watches[key] = max(0.0, (self._now() - since).total_seconds()), self._clock()
        before, started = self._watches[key]
        return before + self._clock() - started


def decide_and_tell(controller: Controller, tell: Callable[[str], object]) -> None:
    """Decide once, and tell what came of it: none, moved, or failed, which is not the end of it."""
    try:
        moved = controller.decide()
    except Exception as error:  # noqa: BLE001 -- whatever it was, the next decision may be made
        why = str(error) if isinstance(error, StoreError) else repr(error)
        LOGGER.warning("rollouts: no decision", extra={"fields": {"detail": why}})
        tell("failed")
    else:
        tell("none" if moved is None else "moved")


def data_age_s(counts: CountStore, rollout: Rollout, now: datetime) -> float | None:
    """Return how old is what was counted last; None: nothing was.

    What is of the future is as strange as what is old: one of the clocks is wrong.
    """
    counted = counts.counted_at(rollout.number)
    return None if counted is None else abs((now - counted).total_seconds())


def periods_of(counts: CountStore, rollout: Rollout, dealt: Dealt) -> Sequence[Period]:
    """Return the steps of a rollout so far, with what was counted in each."""
    kinds: tuple[Traffic, ...] = ("all", "impacted")
    nothing: dict[Traffic, Floats] = {kind: np.zeros((BUCKETS, len(MEASURES))) for kind in kinds}
    sums = counts.sums(rollout.number)
    last = rollout.number - 1
    before = counts.sums(0, step=last).get(last, {}).get("all")
    return [
        Period(rollout.split(dealt.salt, dealt.holdout_ratio, step), sums.get(step, nothing), before)
        for step in range(rollout.last.step + 1)
    ]
