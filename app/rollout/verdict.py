"""Whether a rollout goes on, waits, or goes back. Pure.

    rollback       shown to do harm beyond what is tolerated; or out of time without a gain to show
    insufficient   too few searches in this step, too little time, too old data: look again
    hold           enough was seen and something stands in the way, which `why` names
    promote        on to the next step; to everybody only with a gain shown, and no harm beyond the margins

To go on it takes all there is to ask for; to go back one proof of harm is enough. What is missing is no pass:
without data the only way is to wait, and in the end back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.rollout.evidence import CANARY, Period, compared, mismatch
from app.rollout.plan import Goal, Limit, Plan
from app.rollout.statistics import Effect, Interval, sequence

Action = Literal["promote", "hold", "rollback", "insufficient"]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a verdict is asked for. Seconds.

    Args:
        step: that the rollout is in, from 0.
        in_step_s: since it began.
        in_rollout_s: since the first one began.
        data_age_s: since anything was last counted; None: never.
        paused: by somebody, who is to say when it has taken too long.
    """

    step: int
    in_step_s: float
    in_rollout_s: float
    data_age_s: float | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a metric: the canary against `stable`, positive where the canary is better.

    Args:
        metric: its name.
        gain: so far; None: nothing is known.
        harm: from where on down it would be harm that is shown; the gain is below `harm.high`.
        promise: the gain is above `promise.low`.
        harmful: it is shown to be worse than tolerated.
        harmless: it is shown to be within its margin; of the goal: to be better.
    """

    metric: str
    gain: float | None
    harm: Interval
    promise: Interval
    harmful: bool
    harmless: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, why, and what is known of each metric, the goal first."""

    action: Action
    why: str
    findings: tuple[Finding, ...]


def judge(plan: Plan, periods: Sequence[Period], moment: Moment) -> Verdict:
    """Return what to do with a rollout.

    Args:
        plan: of the rollout.
        periods: its steps so far, the one it is in last.
        moment: now.
    """
    findings = look(plan, periods)
    harmful = [one.metric for one in findings if one.harmful]
    if harmful:
        return Verdict("rollback", f"harm is shown: {', '.join(harmful)}", findings)
    if moment.in_rollout_s > plan.max_s and not moment.paused:
        return Verdict("rollback", f"no gain is shown after {plan.max_s:g} s", findings)
    if waiting := _waits_for(plan, periods[-1], moment):
        return Verdict("insufficient", waiting, findings)
    if obstacle := _obstacle(plan, periods, moment, findings):
        return Verdict("hold", obstacle, findings)
    return Verdict("promote", f"step {moment.step + 1} of {len(plan.steps)} is done", findings)


def look(plan: Plan, periods: Sequence[Period]) -> tuple[Finding, ...]:
    """Return what is known of the goal and of each guardrail, over all steps."""
    aims: tuple[Goal | Limit, ...] = (plan.goal, *plan.guardrails)
    return tuple(_finding(plan, aim, periods) for aim in aims)


def _finding(plan: Plan, aim: Goal | Limit, periods: Sequence[Period]) -> Finding:
    margin, tolerated = (aim.margin, aim.tolerated) if isinstance(aim, Limit) else (0.0, 0.0)
    found = compared(periods, aim.metric, scale=aim.scale)
    if found is not None and aim.better == "lower":
        found = Effect(-found.value, -found.influence, found.exposures)
    planned = plan.planned_searches / 2  # what two arms with so many each know
    # One metric that seems harmful by chance is enough for a false rollback, so they share its alpha. A false
    # promotion takes the goal.
    shared = plan.alpha / (1 + len(plan.guardrails))
    harm = sequence(found, alpha=shared, planned=planned, sides="high")
    promise = sequence(found, alpha=plan.alpha, planned=planned, sides="low")
    harmless = promise.low > -margin if isinstance(aim, Limit) else promise.low > 0
    gain = None if found is None else found.value
    return Finding(aim.metric, gain, harm, promise, harm.high < -tolerated, harmless)


def _waits_for(plan: Plan, period: Period, moment: Moment) -> str | None:
    step = plan.steps[moment.step]
    if moment.data_age_s is None or moment.data_age_s > plan.stale_s:
        age = "never" if moment.data_age_s is None else f"{moment.data_age_s:.0f} s ago"
        return f"stale data: anything was last counted {age}"
    if moment.in_step_s < step.min_s:
        return f"{step.min_s - moment.in_step_s:.0f} s to go in this step"
    searches = period.searches(CANARY)
    if searches < step.min_searches:
        return f"{step.min_searches - searches:.0f} searches of the canary to go in this step"
    return None


def _obstacle(
    plan: Plan, periods: Sequence[Period], moment: Moment, findings: Sequence[Finding]
) -> str | None:
    balance = sequence(mismatch(periods), alpha=plan.srm_alpha, planned=plan.planned_searches / 2)
    if balance.low > 0 or balance.high < 0:
        return f"sample ratio mismatch: the canary's share of searches is off by {balance.low:+.1%} or more"
    if moment.step + 2 < len(plan.steps):
        return None
    goal, *guardrails = findings
    if not goal.harmless:
        return f"{goal.metric} is not shown to be better"
    if unsure := [one.metric for one in guardrails if not one.harmless]:
        return f"not shown to be within their margins: {', '.join(unsure)}"
    return None
