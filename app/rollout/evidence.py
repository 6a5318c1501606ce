"""What was counted in a rollout, and what it says of two arms. Pure.

Who is compared with whom is a matter of groups: (arm shown, variant that writes). The canary's clients are
compared with stable's, and either with those of the holdout for whom the same checkpoint writes, unseen. Of
these it is known which searches would have been impacted, so that both sides mean the same by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from app.rollout.assignment import BUCKETS, Arm, Split, Variant
from app.rollout.statistics import Bools, Effect, Floats, Ratio, Scale, adjusted, combined, effect, ratio

MEASURES = ("searches", "changed", "clicks", "strict", "fallback", "latency_s")
"""Sums: searches, those whose query was changed after, clicks, strict clicks, searches without the rewrite
that they might have had, seconds."""

Group = tuple[Arm, Variant]
Traffic = Literal["all", "impacted"]
CANARY: Group = ("canary", "canary")
STABLE: Group = ("stable", "stable")
UNSEEN_CANARY: Group = ("holdout", "canary")
UNSEEN_STABLE: Group = ("holdout", "stable")
LEAST_BUCKETS = 20
"""In which an arm must have had traffic before anything is said of it: a variance needs some."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a search counts: its rollout's number, step, whether impacted, bucket; see `traffic.Dealing`."""

    rollout: int
    step: int
    impacted: bool
    bucket: int


@dataclass(frozen=True, slots=True)
class Period:
    """One step of a rollout: how traffic was dealt, and what came of it.

    Args:
        split: of the step.
        sums: of all searches, and of the impacted ones, [BUCKETS, MEASURES]. A bucket has one arm in a step:
            arms need no sums of their own.
        before: of all searches before the rollout, [BUCKETS, MEASURES]; None: there were none.
    """

    split: Split
    sums: Mapping[Traffic, Floats]
    before: Floats | None = None

    def searches(self, group: Group) -> float:
        """How many a group had."""
        return float(self.sums["all"][members(self.split)[group], 0].sum())

    def ratio(self, group: Group, metric: str, traffic: Traffic) -> Ratio:
        """Return a metric by search of a group; one without enough traffic has no weight."""
        sums = self.sums[traffic]
        return self._ratio(sums[:, MEASURES.index(metric)], sums[:, 0], members(self.split)[group])

    def ratios(self, treated: Group, control: Group, metric: str, traffic: Traffic) -> tuple[Ratio, Ratio]:
        """Return a metric of two groups, what their buckets were like before taken out of it."""
        sums, column = self.sums[traffic], MEASURES.index(metric)
        numerator, denominator = sums[:, column], sums[:, 0]
        one, two = (members(self.split)[group] for group in (treated, control))
        both = one | two
        if self.before is not None and all(
            np.count_nonzero(self.before[arm, 0]) >= LEAST_BUCKETS for arm in (one, two)
        ):
            numerator = numerator.copy()
            numerator[both], _ = adjusted(
                (sums[both, column], denominator[both]),
                (self.before[both, column], self.before[both, 0]),
                one[both],
            )
        return self._ratio(numerator, denominator, one), self._ratio(numerator, denominator, two)

    def _ratio(self, numerator: Floats, denominator: Floats, arm: Bools) -> Ratio:
        if np.count_nonzero(denominator[arm]) < LEAST_BUCKETS:
            return Ratio(float("nan"), np.zeros(BUCKETS), 0.0)
        return ratio(numerator, denominator, arm)

    def imbalance(self) -> Effect:
        """Return by which part a bucket of the canary has more searches than one of stable's.

        Where it is not 0 but for chance, clients or searches got lost in one of the arms (Fabijan et al.,
        KDD 2019), and nothing that was counted can be trusted.
        """
        dealt, ones = members(self.split), np.ones(BUCKETS)
        canary, stable = (dealt[group] for group in (CANARY, STABLE))
        searches = self.sums["all"][:, 0]
        if any(np.count_nonzero(searches[arm]) < LEAST_BUCKETS for arm in (canary, stable)):
            return Effect(float("nan"), np.zeros(BUCKETS), 0.0)
        found = effect(ratio(searches, ones, canary), ratio(searches, ones, stable), "relative")
        exposures = 1 / sum(1 / self.searches(group) for group in (CANARY, STABLE))
        return Effect(found.value, found.influence, exposures)


@lru_cache(maxsize=64)
def members(split: Split) -> Mapping[Group, Bools]:
    """Return which buckets are each group's, [BUCKETS]."""
    dealt = [split.arm_of(bucket) for bucket in range(BUCKETS)]
    groups: tuple[Group, ...] = (CANARY, STABLE, UNSEEN_CANARY, UNSEEN_STABLE)
    return {group: np.array([(one.arm, one.variant) == group for one in dealt]) for group in groups}


def compared(
    periods: Sequence[Period],
    metric: str,
    *,
    treated: Group = CANARY,
    control: Group = STABLE,
    scale: Scale = "relative",
    traffic: Traffic = "all",
) -> Effect | None:
    """Return what a metric differs by between two groups, within each step; None where nothing is known."""
    pairs = [period.ratios(treated, control, metric, traffic) for period in periods]
    return combined([effect(first, second, scale) for first, second in pairs])


def mismatch(periods: Sequence[Period]) -> Effect | None:
    """Return the imbalance of searches over all steps; None where nothing is known."""
    return combined([period.imbalance() for period in periods])
