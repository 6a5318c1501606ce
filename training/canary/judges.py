"""Who decides on a simulated rollout: ours, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from scipy.stats import mannwhitneyu, norm

from app.rollout.evidence import CANARY, STABLE, Period, compared
from app.rollout.plan import Plan
from app.rollout.verdict import Moment, judge

Action = Literal["promote", "rollback", "wait"]
LEAST_LOOKS = 10
"""Before a Mann-Whitney test says anything."""


class Judge(Protocol):
    """Looks at a rollout again and again."""

    def look(self, plan: Plan, periods: Sequence[Period], step: int) -> Action:
        """Say what to do; `periods` are its steps so far, `step` the one it is in."""


class Sequential:
    """Ours: `app.rollout.verdict`, as the controller asks it."""

    def look(self, plan: Plan, periods: Sequence[Period], step: int) -> Action:
        """See `Judge`."""
        action = judge(plan, periods, Moment(step, math.inf, 0.0, 0.0)).action
        return action if action in {"promote", "rollback"} else "wait"


@dataclass(slots=True)
class ZTest:
    """A z-test of the goal by the delta method, which is made for one look.

    Args:
        horizon: searches of the canary after which it looks, once; 0: it looks always.
    """

    horizon: float = 0.0
    done: bool = False

    def look(self, plan: Plan, periods: Sequence[Period], step: int) -> Action:
        """See `Judge`."""
        searches = sum(period.searches(CANARY) for period in periods)
        found = compared(periods, plan.goal.metric, scale=plan.goal.scale)
        if found is None or searches < self.horizon or found.variance == 0:
            return _by_step(plan, periods, step)
        if self.done:
            return "wait"
        self.done = self.horizon > 0
        sign = -1 if plan.goal.better == "lower" else 1
        z = sign * found.value / math.sqrt(found.variance)
        return _said(plan, periods, step, p_better=float(norm.sf(z)), p_worse=float(norm.cdf(z)))


@dataclass(slots=True)
class MannWhitney:
    """A test of the goal's rates between two looks, as canary analysis of deployments makes it."""

    seen: list[tuple[float, float]] = field(default_factory=list)
    before: tuple[int, float, float, float, float] = (-1, 0.0, 0.0, 0.0, 0.0)

    def look(self, plan: Plan, periods: Sequence[Period], step: int) -> Action:
        """See `Judge`."""
        period = periods[-1]
        rates = [period.ratio(group, plan.goal.metric, "all") for group in (CANARY, STABLE)]
        if min(one.weight for one in rates) == 0:
            return "wait"
        sums = [(one.value * one.weight, one.weight) for one in rates]
        last = self.before if self.before[0] == step else (step, 0.0, 0.0, 0.0, 0.0)
        now = (step, *sums[0], *sums[1])
        weights = now[2] - last[2], now[4] - last[4]
        if min(weights) > 0:
            self.seen.append(((now[1] - last[1]) / weights[0], (now[3] - last[3]) / weights[1]))
            self.before = now
        if len(self.seen) < LEAST_LOOKS:
            return _by_step(plan, periods, step)
        canary, stable = zip(*self.seen, strict=True)
        sides = ("less", "greater") if plan.goal.better == "lower" else ("greater", "less")
        better, worse = (float(mannwhitneyu(canary, stable, alternative=side).pvalue) for side in sides)
        return _said(plan, periods, step, p_better=better, p_worse=worse)


def _said(plan: Plan, periods: Sequence[Period], step: int, *, p_better: float, p_worse: float) -> Action:
    if p_worse < plan.alpha:
        return "rollback"
    if step + 2 < len(plan.steps) or p_better < plan.alpha:
        return _by_step(plan, periods, step, sure=p_better < plan.alpha)
    return "wait"


def _by_step(plan: Plan, periods: Sequence[Period], step: int, *, sure: bool = False) -> Action:
    """On to the next step when it has had its searches; to everybody only when sure."""
    enough = periods[-1].searches(CANARY) >= plan.steps[step].min_searches
    return "promote" if enough and (sure or step + 2 < len(plan.steps)) else "wait"
