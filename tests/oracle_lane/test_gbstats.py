"""The statistics against GrowthBook's gbstats, where both compute the same thing: 1,000 experiments.

It needs numpy < 2, so it has an environment of its own (`make test-oracle`). A bucket is a unit here, and the
units of both arms are the time, as gbstats has it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import RatioStatistic, SampleMeanStatistic

from app.rollout.statistics import Floats, effect, ratio, sequence

EXPERIMENTS = 1000
TOLERANCE = 1e-6
PLANNED = 5000.0


def drawn(rng: np.random.Generator, size: int, rate: float) -> tuple[Floats, Floats]:
    """Searches of clients that differ, and how many of them had something happen."""
    searches = 1 + rng.poisson(rng.gamma(2.0, 5.0, size))
    happened = rng.binomial(searches, np.clip(rng.beta(2, 6, size) * rate / 0.25, 0, 1))
    return happened.astype(float), searches.astype(float)


def of_gbstats(numerator: Floats, denominator: Floats) -> RatioStatistic:
    n = numerator.size
    return RatioStatistic(
        n=n,
        m_statistic=SampleMeanStatistic(n=n, sum=numerator.sum(), sum_squares=(numerator**2).sum()),
        d_statistic=SampleMeanStatistic(n=n, sum=denominator.sum(), sum_squares=(denominator**2).sum()),
        m_d_sum_of_products=float(numerator @ denominator),
    )


@pytest.mark.parametrize("scale", ["relative", "absolute"])
def test_a_thousand_experiments(scale: str) -> None:
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(EXPERIMENTS):
        sizes = rng.integers(20, 400, 2)
        stable, canary = (drawn(rng, int(size), rng.uniform(0.05, 0.5)) for size in sizes)
        alpha = float(rng.choice([0.01, 0.05, 0.2]))
        arm = np.arange(sizes.sum()) >= sizes[0]
        both = [np.concatenate(pair) for pair in zip(stable, canary, strict=True)]
        one, two = (ratio(both[0], both[1], which) for which in (arm, ~arm))
        found = replace(effect(one, two, scale), exposures=float(sizes.sum()))  # type: ignore[arg-type]
        ours = sequence(found, alpha=alpha, planned=PLANNED)
        config = SequentialConfig(alpha=alpha, difference_type=scale, sequential_tuning_parameter=PLANNED)
        theirs = SequentialTwoSidedTTest(of_gbstats(*stable), of_gbstats(*canary), config).compute_result()
        differences = np.array([found.value, ours.low, ours.high]) - [theirs.expected, *theirs.ci]
        worst = max(worst, float(np.abs(differences).max()))
    assert worst < TOLERANCE
