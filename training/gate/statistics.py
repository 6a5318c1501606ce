"""How sure one may be that a mean is above or below 0: a bootstrap over queries. Pure.

For values x_1..x_n of queries, n queries are drawn with replacement many times (Efron and Tibshirani 1993;
for paired differences Sakai, SIGIR 2006); the share of drawn means on the wrong side of 0 is the one-sided
p-value. A mean over fewer than LEAST queries says nothing either way: its bootstrap would be too sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST = 30
POWER = 0.8
"""How often the evidence that is asked for would be enough, if what was seen is so."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a bootstrap says of the sign of a mean.

    Args:
        mean: over the queries.
        low, high: two-sided interval at 1 - 2 · level.
        p_above: one-sided p-value of "the mean is above 0"; small where it surely is.
        p_below: the same of "below 0".
        error: standard error of the mean.
        queries: how many values there were.
    """

    mean: float
    low: float
    high: float
    p_above: float
    p_below: float
    error: float
    queries: int

    def needed(self, level: float) -> int | None:
        """Return how many queries would settle the sign with probability POWER, if the mean stays as it is.

        None where the mean is 0: no number would.
        """
        if self.mean == 0.0 or not self.queries:
            return None
        normal = NormalDist()
        deviations = normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)
        found = math.ceil(self.queries * (deviations * self.error / self.mean) ** 2)
        return max(found, LEAST)


def sign_of(values: Floats, *, level: float, resamples: int, seed: int) -> Sign:
    """Return what is known of the sign of the mean of `values`, [queries], all finite.

    Raises:
        ValueError: there is no value: a mean of nothing is not 0.
    """
    if not values.size:
        raise ValueError("no value: a mean of nothing is not 0")
    means = _draws(values.size, resamples, seed) @ values / values.size
    low, high = np.quantile(means, [level, 1 - level])
    # One is added on both sides: no number of resamples proves that something cannot be.
    p_above, p_below = ((1 + int((side <= 0).sum())) / (1 + resamples) for side in (means, -means))
    return Sign(
        float(values.mean()), float(low), float(high), p_above, p_below, float(means.std()), values.size
    )


def exact_sign(value: float) -> Sign:
    """Return the sign of something that was counted, not sampled: it is sure."""
    above, below = (0.0 if value > 0 else 1.0), (0.0 if value < 0 else 1.0)
    return Sign(value, value, value, above, below, 0.0, 1)


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which hypotheses are rejected so that any wrong rejection has probability <= level.

    Holm's step-down procedure (Scandinavian Journal of Statistics, 1979); it asks for no independence.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = [False] * len(p_values)
    for done, place in enumerate(order):
        if p_values[place] > level / (len(p_values) - done):
            break
        rejected[place] = True
    return rejected


@lru_cache(maxsize=4)
def _draws(queries: int, resamples: int, seed: int) -> Floats:
    """How often each query is drawn, [resamples, queries]; the same for all metrics of as many queries."""
    rng = np.random.default_rng(seed)
    counts = np.empty((resamples, queries))
    for row in range(resamples):
        counts[row] = np.bincount(rng.integers(queries, size=queries), minlength=queries)
    return counts
