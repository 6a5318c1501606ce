"""What two arms differ in, and how surely, at every look. Pure.

Clients are independent of each other, their searches are not, so a variance is taken over buckets of clients
and never over searches. A metric is a ratio of sums (changed queries by searches), whose variance is the
delta method's (Deng, Knoblich and Lu, KDD 2018).

A canary is looked at all the time, and a test made for one look would call nearly every rollout harmful in
the end. A confidence sequence holds at all looks together (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", arXiv 2103.06476).

While the canary grows, its share and whatever the season does change together, and sums over all of it
compare one arm's autumn with the other's winter (Simpson's paradox). So arms are compared within a step,
where the share stands still, and the differences are then averaged by how much each step knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scale = Literal["relative", "absolute"]
Sides = Literal["both", "low", "high"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio metric of one arm.

    Args:
        value: sum of numerators by sum of denominators; NaN where nothing was counted.
        influence: [buckets], by how much each bucket moves `value`; 0 for those of other arms. The variance
            of `value` is the sum of squares.
        weight: the sum of denominators.
    """

    value: float
    influence: Floats
    weight: float

    @property
    def variance(self) -> float:
        """Of `value`, over buckets."""
        return float(self.influence @ self.influence)


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference between two arms.

    Args:
        value: treated minus control, or that by control.
        influence: [buckets], as of a `Ratio`.
        exposures: what both arms know of it: 1 / (1 / treated + 1 / control), in denominators.
    """

    value: float
    influence: Floats
    exposures: float

    @property
    def variance(self) -> float:
        """Of `value`, over buckets."""
        return float(self.influence @ self.influence)


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence sequence at one look; the side that was not asked for is infinite."""

    low: float
    high: float


def ratio(numerator: Floats, denominator: Floats, arm: Bools) -> Ratio:
    """Return a ratio metric of an arm.

    Where all of its searches agree (none fell back, or every one), they are given the spread of as many of
    which one does not: that nothing has happened in n searches leaves room for about 1 / n.

    Args:
        numerator: [buckets], their sums.
        denominator: [buckets], likewise.
        arm: [buckets], which are the arm's, with traffic or without.

    Raises:
        ValueError: the arm has fewer than two buckets.
    """
    size = int(arm.sum())
    if size <= 1:
        raise ValueError(f"an arm of {size} buckets has no variance")
    whole = float(denominator[arm].sum())
    if whole <= 0:
        return Ratio(math.nan, np.zeros(arm.size), 0.0)
    value = float(numerator[arm].sum()) / whole
    residuals = np.where(arm, numerator - value * denominator, 0.0)
    if not residuals.any():
        residuals = np.where(arm, 1 / math.sqrt(size), 0.0)
    return Ratio(value, residuals * math.sqrt(size / (size - 1)) / whole, whole)


def effect(treated: Ratio, control: Ratio, scale: Scale) -> Effect:
    """Return what the treated arm differs by; NaN where nothing is known, or the control is 0."""
    nothing = np.zeros_like(treated.influence)
    if not (treated.weight > 0 and control.weight > 0):
        return Effect(math.nan, nothing, 0.0)
    exposures = 1 / (1 / treated.weight + 1 / control.weight)
    change, base = treated.value - control.value, control.value
    if scale == "absolute":
        return Effect(change, treated.influence - control.influence, exposures)
    if not base > 0:
        return Effect(math.nan, nothing, exposures)
    influence = treated.influence / base - control.influence * treated.value / base**2
    return Effect(change / base, influence, exposures)


def combined(effects: Sequence[Effect]) -> Effect | None:
    """Return the average of the effects of steps by their exposures; None where there is none.

    Exposures weigh, not variances: a step that has seen no event yet has no variance either, and would weigh
    everything. A client of one step is one of the next, so influences are added, not variances.
    """
    known = [one for one in effects if one.exposures > 0 and math.isfinite(one.value)]
    if not known:
        return None
    whole = math.fsum(one.exposures for one in known)
    shares = np.array([one.exposures / whole for one in known])
    value = float(shares @ np.array([one.value for one in known]))
    return Effect(value, shares @ np.stack([one.influence for one in known]), whole)


def sequence(found: Effect | None, *, alpha: float, planned: float, sides: Sides = "both") -> Interval:
    """Return an interval that holds the true effect at all looks with probability 1 - alpha, asymptotically.

    The normal mixture of arXiv 2103.06476, and for one side that of Howard, Ramdas, McAuliffe and Sekhon
    (arXiv 1810.08240) in its closed form; the exposures are the time.

    Args:
        found: so far; None, or without any spread, gives an interval without ends.
        alpha: of all looks together.
        planned: exposures at which the interval is to be tightest; it holds at any other too.
        sides: `low` says from where on, `high` up to where; each is tighter than one of both.
    """
    if not (0 < alpha < 1 and planned > 0):
        raise ValueError(f"need 0 < alpha < 1 and planned > 0, not {alpha} and {planned}")
    if found is None or found.variance == 0:
        return Interval(-math.inf, math.inf)
    two_sided = alpha if sides == "both" else 2 * alpha
    time = found.exposures * _rho_squared(min(two_sided, 0.5), planned)
    if sides == "both":
        bound = math.log((time + 1) / alpha**2)
    else:
        bound = 2 * math.log1p(math.sqrt(time + 1) / (2 * alpha))
    half = math.sqrt(found.variance * (time + 1) / time * bound)
    return Interval(
        -math.inf if sides == "high" else found.value - half,
        math.inf if sides == "low" else found.value + half,
    )


def adjusted(
    metric: tuple[Floats, Floats], before: tuple[Floats, Floats], treated: Bools
) -> tuple[Floats, Floats]:
    """Return a metric with what its buckets were like before taken out of it (CUPED; Deng et al., WSDM 2013).

    Args:
        metric: numerators and denominators, [buckets] of both arms.
        before: the same of a time before the rollout.
        treated: [buckets], which are the treated arm's.

    Returns:
        Numerators and denominators whose ratio has the same expectation in each arm, and less variance.
    """
    numerator, denominator = metric
    y, x = (_linear(*one) for one in (metric, before))
    # Theta is that within the arms: what the arms differ in is what is looked for.
    inside = [
        values - np.where(treated, values[treated].mean(), values[~treated].mean()) for values in (y, x)
    ]
    spread = float(inside[1] @ inside[1])
    if spread <= 0:
        return numerator, denominator
    theta = float(inside[0] @ inside[1]) / spread
    return numerator - theta * (x - x.mean()) * denominator.mean(), denominator


def _linear(numerator: Floats, denominator: Floats) -> Floats:
    """A ratio metric as one number for each bucket, whose variance the delta method takes."""
    whole = float(denominator.mean())
    if whole <= 0:
        return np.zeros_like(numerator)
    return (numerator - float(numerator.mean()) / whole * denominator) / whole


def _rho_squared(alpha: float, planned: float) -> float:
    """How the mixture is spread: about the best for an interval at `planned` exposures (arXiv 2103.06476)."""
    level = -2 * math.log(alpha)
    return (level + math.log(level + 1)) / planned
