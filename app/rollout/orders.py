"""What people may ask of rollouts, over HTTP or on the command line, and what they are told. It blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from app.contracts.manifest import Digest
from app.errors import PlanError, RolloutError
from app.rollout.comparisons import comparisons
from app.rollout.controller import Dealt, data_age_s, periods_of
from app.rollout.counts import CountStore
from app.rollout.evidence import CANARY, STABLE, UNSEEN_CANARY, UNSEEN_STABLE, Group, Period
from app.rollout.looks import LookStore, facts_of, finite
from app.rollout.members import Members
from app.rollout.plan import Plan, read_plan
from app.rollout.state import Deployment, Order, Rollout, Switch, Transition, after
from app.rollout.store import RolloutStore
from app.rollout.verdict import Moment, Verdict, judge

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Word = Literal["pause", "resume", "promote", "rollback"]
ORDERS: dict[Word, Order] = {
    "pause": "pause",
    "resume": "resume",
    "promote": "finish",
    "rollback": "rollback",
}
"""By the words that people use: to promote by hand is to everybody, at once."""

_ARMS: dict[str, Group] = {
    "canary": CANARY,
    "stable": STABLE,
    "holdout, canary unseen": UNSEEN_CANARY,
    "holdout, stable unseen": UNSEEN_STABLE,
}


@dataclass(frozen=True, slots=True)
class Orders:
    """All that people may ask.

    Args:
        store: of rollouts.
        counts: what was counted.
        members: replicas.
        looks: what controllers saw.
        dealt: how clients are.
        find: from an alias or a digest's beginning to a checkpoint's digest, and its gate's verdict, None
            where it has none. Raises CorewriteError.
        now: the time of day, by the store's clock.
    """

    store: RolloutStore
    counts: CountStore
    members: Members
    looks: LookStore
    dealt: Dealt
    find: Callable[[str], tuple[Digest, str | None]]
    now: Callable[[], datetime]

    def start(
        self,
        checkpoint: str,
        plan: str,
        *,
        who: str,
        why: str,
        name: str | None = None,
        ungated: bool = False,
    ) -> dict[str, Any]:
        """Start a rollout of a checkpoint by the TOML text of a plan.

        Raises:
            PlanError: the plan or the name is none.
            RolloutError: another rollout is live, or the name was used before; or the checkpoint has not
                passed the gate, unless it may be `ungated`.
            CorewriteError: there is no such checkpoint.
        """
        read = read_plan(plan)
        (digest, gate), at = self.find(checkpoint), self.now()
        if gate != "PASS" and not ungated:
            raise RolloutError(f"{digest[:12]}: {gate or 'no verdict'} of the gate, and only PASS moves on")
        name = name or f"{at:%Y%m%d-%H%M%S}-{digest[:8]}"
        if not re.fullmatch(NAME, name):
            raise PlanError(f"name {name!r}: must match {NAME}")
        self.store.start(name, digest, read, who=who, why=why, at=at)
        return self.status()

    def order(self, word: Word, *, who: str, why: str) -> dict[str, Any]:
        """Do something to the rollout that is live.

        Raises:
            RolloutError: there is none, or it cannot be done in its state.
        """
        rollout = self.store.deployment().latest
        if rollout is None or not rollout.is_live:
            raise RolloutError(f"there is no live rollout to {word}")
        self.store.move(rollout, after(rollout, ORDERS[word], who=who, why=why, at=self.now()))
        return self.status()

    def kill(self, *, on: bool, who: str, why: str) -> dict[str, Any]:
        """Give everybody the original, or stop doing so; return what is deployed.

        Nothing more: whoever is in a hurry does not wait for a verdict.
        """
        self.store.switch(killed=on, who=who, why=why, at=self.now())
        return _deployed(self.store.deployment())

    def status(self) -> dict[str, Any]:
        """Return what is deployed, what is known of the live rollout, and who takes part."""
        deployment, at = self.store.deployment(), self.now()
        replicas = self.members.replicas(at)
        return {
            **_deployed(deployment),
            "replicas": len(replicas),
            "rollout": self._rollout(deployment.latest, replicas) if deployment.latest else None,
        }

    def history(self) -> list[dict[str, Any]]:
        """Return every transition of every rollout and of the kill switch, the first one first.

        The kill switch belongs to no rollout: `rollout`, `checkpoint` and `step` of its lines are None.
        """
        moved = [
            {"rollout": rollout.id, "checkpoint": rollout.checkpoint, **_line(line)}
            for rollout in self.store.rollouts()
            for line in self.store.history(rollout.number)
        ]
        switched = [
            {"rollout": None, "checkpoint": None, **_switched(line)} for line in self.store.switches()
        ]
        return sorted(moved + switched, key=lambda line: line["at"])

    def growth(self) -> list[dict[str, Any]]:
        """Return what controllers saw of the latest rollout, look by look, the first one first."""
        latest = self.store.deployment().latest
        return [
            {
                "at": look.at.isoformat(),
                "step": look.step + 1,
                "searches": look.searches,
                "action": look.action,
                "why": look.why,
                "findings": look.findings,
            }
            for look in (self.looks.of(latest.number) if latest else ())
        ]

    def _rollout(self, rollout: Rollout, replicas: dict[str, Digest | None]) -> dict[str, Any]:
        at = self.now()
        told: dict[str, Any] = {
            "name": rollout.id,
            "checkpoint": rollout.checkpoint,
            "stages": list(rollout.plan.stages),
            "plan": rollout.plan.model_dump(mode="json"),
            "started": rollout.started.isoformat(),
            "step": rollout.last.step + 1,
            "steps": [step.ratio for step in rollout.plan.steps],
            "ratio": rollout.canary_ratio,
            "last": _line(rollout.last),
            "loaded": sum(loaded == rollout.checkpoint for loaded in replicas.values()),
        }
        periods = periods_of(self.counts, rollout, self.dealt)
        moment = Moment(
            rollout.last.step,
            (at - rollout.entered).total_seconds(),
            (at - rollout.started).total_seconds(),
            data_age_s(self.counts, rollout, at),
            paused=rollout.last.state == "paused",
        )
        verdict = judge(rollout.plan, periods, moment)
        return told | {
            "verdict": _verdict(verdict, live=rollout.is_live),
            "arms": _arms(periods),
            "comparisons": _comparisons(rollout.plan, periods),
        }


def _deployed(deployment: Deployment) -> dict[str, Any]:
    promoted, switch = deployment.promoted, deployment.switch
    return {
        "killed": deployment.killed,
        "switch": switch and {"at": switch.at.isoformat(), "who": switch.who, "why": switch.why},
        "stable": promoted and {"checkpoint": promoted.checkpoint, "stages": list(promoted.plan.stages)},
    }


def _line(line: Transition) -> dict[str, Any]:
    return {
        "at": line.at.isoformat(),
        "who": line.who,
        "order": line.order,
        "state": line.state,
        "step": line.step + 1,
        "why": line.why,
    }


def _switched(line: Switch) -> dict[str, Any]:
    return {
        "at": line.at.isoformat(),
        "who": line.who,
        "order": "kill" if line.killed else "end_kill",
        "state": "killed" if line.killed else "not_killed",
        "step": None,
        "why": line.why,
    }


def _verdict(verdict: Verdict, *, live: bool) -> dict[str, Any]:
    return {
        "action": verdict.action if live else None,
        "why": verdict.why if live else "it is over",
        "findings": [facts_of(one) for one in verdict.findings],
    }


def _comparisons(plan: Plan, periods: Sequence[Period]) -> list[dict[str, Any]]:
    return [
        {
            "pair": one.pair,
            "traffic": one.traffic,
            "metric": one.metric,
            "scale": one.scale,
            "treated": one.treated,
            "control": one.control,
            "change": one.change,
            "low": finite(one.interval.low),
            "high": finite(one.interval.high),
        }
        for one in comparisons(plan, periods)
    ]


def _arms(periods: Sequence[Period]) -> dict[str, Any]:
    return {name: {"searches": sum(one.searches(group) for one in periods)} for name, group in _ARMS.items()}
