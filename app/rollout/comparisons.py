"""All that a rollout can be asked: each pair of groups, on all traffic and on what was impacted. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.rollout.evidence import (
    CANARY,
    STABLE,
    UNSEEN_CANARY,
    UNSEEN_STABLE,
    Group,
    Period,
    Traffic,
    compared,
)
from app.rollout.plan import Goal, Limit, Metric, Plan, Scale
from app.rollout.statistics import Interval, sequence

PAIRS: dict[str, tuple[Group, Group]] = {
    "canary against stable": (CANARY, STABLE),
    "canary against the holdout": (CANARY, UNSEEN_CANARY),
    "stable against the holdout": (STABLE, UNSEEN_STABLE),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric by search of one group against another.

    Args:
        pair: which groups; see `PAIRS`.
        traffic: which of their searches. Impacted ones can be compared with those of the holdout alone: for
            these it is known which would have been, by the same checkpoint.
        metric: its name.
        scale: of the change.
        treated, control: the metric in both, over all steps.
        change: within the steps; None: nothing is known.
        interval: that holds the true change at all looks with probability 1 - alpha.
    """

    pair: str
    traffic: Traffic
    metric: Metric
    scale: Scale
    treated: float | None
    control: float | None
    change: float | None
    interval: Interval


def comparisons(plan: Plan, periods: Sequence[Period]) -> list[Comparison]:
    """Return all of them, for the goal and the guardrails of a plan."""
    aims: tuple[Goal | Limit, ...] = (plan.goal, *plan.guardrails)
    kinds: tuple[Traffic, ...] = ("all", "impacted")
    return [
        _comparison(plan, periods, pair, traffic, aim)
        for pair, (_, control) in PAIRS.items()
        for traffic in kinds
        if traffic == "all" or control != STABLE
        for aim in aims
    ]


def _comparison(
    plan: Plan, periods: Sequence[Period], pair: str, traffic: Traffic, aim: Goal | Limit
) -> Comparison:
    treated, control = PAIRS[pair]
    found = compared(periods, aim.metric, treated=treated, control=control, scale=aim.scale, traffic=traffic)
    return Comparison(
        pair,
        traffic,
        aim.metric,
        aim.scale,
        _rate(periods, treated, aim.metric, traffic),
        _rate(periods, control, aim.metric, traffic),
        None if found is None else found.value,
        sequence(found, alpha=plan.alpha, planned=plan.planned_searches / 2),
    )


def _rate(periods: Sequence[Period], group: Group, metric: Metric, traffic: Traffic) -> float | None:
    found = [period.ratio(group, metric, traffic) for period in periods]
    whole = math.fsum(one.weight for one in found)
    return math.fsum(one.value * one.weight for one in found if one.weight) / whole if whole else None
