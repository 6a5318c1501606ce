"""A rollout's states, and what may follow what. Pure.

    preparing ──▶ running ──▶ ... each step ... ──▶ promoted
        │          │   ▲
        │      pause   resume
        │          ▼   │
        └──────▶ paused ──▶ rolled_back          from any of the three

    preparing     replicas load the canary's checkpoint; everybody has stable
    running       the canary has the share of its step
    paused        it keeps its share, and nothing but harm moves it
    promoted      it is stable now
    rolled_back   everybody has stable again

Every arrow is a `Transition`, numbered from 1: whoever makes one says which was the last that they have seen,
so that of two at once one is told to look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.contracts.manifest import Digest
from app.errors import RolloutError
from app.rollout.assignment import Split
from app.rollout.plan import Plan

State = Literal["preparing", "running", "paused", "promoted", "rolled_back"]
Order = Literal["begin", "promote", "pause", "resume", "finish", "rollback"]
LIVE: tuple[State, ...] = ("preparing", "running", "paused")

_FROM: dict[Order, tuple[State, ...]] = {
    "begin": ("preparing",),
    "promote": ("running",),
    "pause": ("running",),
    "resume": ("paused",),
    "finish": ("running", "paused"),
    "rollback": LIVE,
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of a rollout's history.

    Args:
        number: from 1; the first one is its start.
        at: when.
        who: has asked for it.
        order: what was asked for; "start" for the first.
        state: since then.
        step: since then, from 0.
        why: in words.
    """

    number: int
    at: datetime
    who: str
    order: str
    state: State
    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as it is.

    Args:
        number: from 1; one rollout comes after the other.
        id: its name, which is its salt too.
        checkpoint: its digest in the registry.
        plan: what it goes by.
        last: its last transition.
        started: when it was started.
        entered: when its step began.
    """

    number: int
    id: str
    checkpoint: Digest
    plan: Plan
    last: Transition
    started: datetime
    entered: datetime

    @classmethod
    def of(
        cls, number: int, name: str, checkpoint: Digest, plan: Plan, history: Sequence[Transition]
    ) -> Rollout:
        """Return the rollout that has this history."""
        # Who has what does not change by a pause.
        entered = next(line.at for line in reversed(history) if line.order not in {"pause", "resume"})
        return cls(number, name, checkpoint, plan, history[-1], history[0].at, entered)

    @property
    def is_live(self) -> bool:
        """Whether anything may still become of it."""
        return self.last.state in LIVE

    @property
    def canary_ratio(self) -> float:
        """The share of the buckets that have the canary now."""
        return self.plan.steps[self.last.step].ratio if self.last.state in {"running", "paused"} else 0.0

    def split(self, salt: str, holdout_ratio: float, step: int | None = None) -> Split:
        """Return how traffic is dealt now, or in another step."""
        ratio = self.canary_ratio if step is None else self.plan.steps[step].ratio
        return Split(salt, holdout_ratio, self.id, ratio)


@dataclass(frozen=True, slots=True)
class Switch:
    """One line of the kill switch's history."""

    number: int
    at: datetime
    who: str
    killed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """What replicas follow.

    Args:
        latest: the rollout that was started last, live or over; None: there was none.
        promoted: the one that is stable now; None: what the settings name is.
        switch: the kill switch; None: nobody has touched it.
    """

    latest: Rollout | None
    promoted: Rollout | None
    switch: Switch | None

    @property
    def killed(self) -> bool:
        """Whether everybody gets the original."""
        return self.switch is not None and self.switch.killed


def after(rollout: Rollout, order: Order, *, who: str, why: str, at: datetime) -> Transition:
    """Return the transition that an order makes.

    `promote` goes one step on, and the last one is `promoted`; `finish` goes there at once.

    Raises:
        RolloutError: it cannot be done in this state.
    """
    last, steps = rollout.last, len(rollout.plan.steps)
    if last.state not in _FROM[order]:
        raise RolloutError(
            f"{rollout.id} is {last.state}: {order} takes one that is {' or '.join(_FROM[order])}"
        )
    step, state = last.step, last.state
    match order:
        case "begin" | "resume":
            state = "running"
        case "pause":
            state = "paused"
        case "promote":
            step += 1
        case "finish":
            step = steps - 1
        case "rollback":
            state = "rolled_back"
    if order in {"begin", "promote", "finish"} and step == steps - 1:
        state = "promoted"
    return Transition(last.number + 1, at, who, order, state, step, why)
