"""What can be done to a rollout from the console: when, and what is said before and after. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.rollout.state import Rollout, State


@dataclass(frozen=True, slots=True)
class Act:
    """One of them.

    Args:
        title: in the imperative: what its button says.
        says: what will happen, before it is done; `{...}` are facts of the rollout, see `said`.
        done: what has happened.
        states: of the live rollout in which it can be done; none: it is not about the live rollout.
        grave: it takes something away from users at once.
    """

    title: str
    says: str
    done: str
    states: tuple[State, ...] = ()
    grave: bool = False


ACTS: Mapping[str, Act] = {
    "start": Act(
        "Start a rollout",
        "When every replica has loaded the checkpoint, the first share of the clients gets it, by the plan. "
        "It goes on, or back, without anybody.",
        "Started: it prepares until every replica has loaded the checkpoint.",
    ),
    "pause": Act(
        "Pause",
        "The canary keeps its share ({share} of the clients), and nothing moves it on. Harm that is shown "
        "still takes it back.",
        "Paused: the canary keeps its share.",
        states=("running",),
    ),
    "resume": Act(
        "Resume",
        "It goes on by its plan, from step {step} of {steps} ({share} of the clients).",
        "Resumed: it goes on by its plan.",
        states=("paused",),
    ),
    "promote": Act(
        "Promote",
        "All clients get checkpoint {checkpoint} for {stages}, now and for good, whatever the statistics "
        "say. The alias stable will point to it, and last_good, unless it does, to what is now.",
        "Promoted: everybody gets it.",
        states=("running", "paused"),
    ),
    "rollback": Act(
        "Roll back",
        "The canary's clients get stable again, at all replicas within a second. This rollout is over then; "
        "another one may be started.",
        "Rolled back: everybody has stable.",
        states=("preparing", "running", "paused"),
        grave=True,
    ),
    "kill": Act(
        "Kill",
        "Everybody gets the original: here at once, at all replicas within a second. No rewrite is shown and "
        "every factor is 1, until somebody ends it. The rollout stays in its state.",
        "Killed: everybody gets the original.",
        grave=True,
    ),
    "revive": Act(
        "End the kill",
        "Rewrites are shown again, as traffic was dealt before.",
        "The kill has ended: rewrites are shown again.",
    ),
}


def open_acts(rollout_state: State | None, *, live: bool, killed: bool) -> list[str]:
    """Return what can be done now, in the order of the buttons."""
    found = [name for name, act in ACTS.items() if live and rollout_state in act.states]
    return [*([] if live else ["start"]), *found, "revive" if killed else "kill"]


def said(act: Act, rollout: Rollout | None) -> str:
    """Return what will happen, of this rollout."""
    if rollout is None:
        return act.says
    return act.says.format(
        share=f"{100 * rollout.canary_ratio:g} %",
        step=rollout.last.step + 1,
        steps=len(rollout.plan.steps),
        checkpoint=rollout.checkpoint[:12],
        stages=", ".join(rollout.plan.stages),
    )


def agrees(act: str, seen: str, rollout: Rollout | None) -> bool:
    """Whether what a form's reader has seen is still so; for the way back the same rollout is enough."""
    now = seen_of(rollout)
    return seen.partition("/")[0] == now.partition("/")[0] if act == "rollback" else seen == now


def seen_of(rollout: Rollout | None) -> str:
    """Return what a form says that its reader has seen: another transition makes it another one."""
    return "" if rollout is None else f"{rollout.number}/{rollout.last.number}"
