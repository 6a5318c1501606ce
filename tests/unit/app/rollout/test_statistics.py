"""The statistics, against plain arithmetic and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from app.rollout.statistics import (
    Bools,
    Effect,
    Floats,
    Scale,
    adjusted,
    combined,
    effect,
    ratio,
    sequence,
)

BUCKETS = 400
ALL = np.ones(BUCKETS, bool)
NOTHING = np.zeros(1)


def drawn(rng: np.random.Generator, rate: Floats | float, searches: float = 20.0) -> tuple[Floats, Floats]:
    """Numerators and denominators of buckets."""
    n = rng.poisson(searches, BUCKETS)
    return rng.binomial(n, rate).astype(float), n.astype(float)


def test_a_ratio_is_that_of_the_sums_and_its_variance_that_of_the_delta_method() -> None:
    numerator, denominator = drawn(np.random.default_rng(0), 0.3)
    found = ratio(numerator, denominator, ALL)
    means, covariance = (numerator.mean(), denominator.mean()), np.cov(numerator, denominator)
    gradient = np.array([1 / means[1], -means[0] / means[1] ** 2])
    assert found.value == pytest.approx(numerator.sum() / denominator.sum(), rel=1e-12)
    assert found.variance == pytest.approx(gradient @ covariance @ gradient / BUCKETS, rel=1e-9)
    assert found.weight == denominator.sum()


def test_a_variance_is_what_draws_vary_by() -> None:
    """Clients differ, so searches of a bucket are alike: a binomial would have a third of the variance."""
    rng = np.random.default_rng(1)
    found = [ratio(*drawn(rng, rng.beta(1, 3, BUCKETS), 30.0), ALL) for _ in range(2000)]
    spread = np.var([one.value for one in found])
    assert np.mean([one.variance for one in found]) == pytest.approx(spread, rel=0.1)
    assert spread > 3 * 0.25 * 0.75 / (30 * BUCKETS)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_where_all_searches_agree_one_might_not(rate: float) -> None:
    """As with one that does not, of as many."""
    searches = np.full(BUCKETS, 25.0)
    one = np.where(np.arange(BUCKETS) == 7, 1.0, 0.0)
    nearly = ratio(np.abs(rate * searches - one), searches, ALL)
    found = ratio(rate * searches, searches, ALL)
    assert found.value == rate
    assert math.sqrt(found.variance) == pytest.approx(1 / searches.sum(), rel=0.01)
    assert found.variance == pytest.approx(nearly.variance, rel=0.01)


def test_other_arms_do_not_count() -> None:
    rng = np.random.default_rng(2)
    numerator, denominator = drawn(rng, 0.3)
    arm = rng.random(BUCKETS) < 0.4
    alone = ratio(numerator[arm], denominator[arm], np.ones(int(arm.sum()), bool))
    among = ratio(numerator, denominator, arm)
    assert (among.value, among.weight) == (alone.value, alone.weight)
    assert among.variance == pytest.approx(alone.variance, rel=1e-12)
    assert not among.influence[~arm].any()


def test_without_traffic_nothing_is_known() -> None:
    nothing = ratio(np.zeros(BUCKETS), np.zeros(BUCKETS), ALL)
    assert math.isnan(nothing.value)
    assert nothing.weight == 0
    some = ratio(*drawn(np.random.default_rng(3), 0.3), ALL)
    assert effect(some, nothing, "relative").exposures == 0
    assert combined([effect(some, nothing, "relative"), effect(nothing, some, "absolute")]) is None


@pytest.mark.parametrize("size", [0, 1])
def test_an_arm_of_one_bucket_has_no_variance(size: int) -> None:
    arm = np.arange(BUCKETS) < size
    with pytest.raises(ValueError, match=f"arm of {size} buckets"):
        ratio(np.ones(BUCKETS), np.ones(BUCKETS), arm)


def halves() -> Bools:
    return np.arange(BUCKETS) % 2 < 1


@pytest.mark.parametrize("scale", ["relative", "absolute"])
def test_an_effect_is_what_its_name_says(scale: Scale) -> None:
    numerator, denominator = drawn(np.random.default_rng(4), np.where(halves(), 0.33, 0.3))
    one, two = (ratio(numerator, denominator, arm) for arm in (halves(), ~halves()))
    found = effect(one, two, scale)
    change, variance = one.value - two.value, one.variance + two.variance
    if scale == "relative":
        change /= two.value
        variance = one.variance / two.value**2 + two.variance * one.value**2 / two.value**4
    assert found.value == pytest.approx(change, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.exposures == pytest.approx(1 / (1 / one.weight + 1 / two.weight))


def test_by_nothing_nothing_can_be_relative() -> None:
    numerator, denominator = drawn(np.random.default_rng(5), np.where(halves(), 0.3, 0.0))
    one, two = (ratio(numerator, denominator, arm) for arm in (halves(), ~halves()))
    assert effect(one, two, "relative").exposures > 0
    assert combined([effect(one, two, "relative")]) is None
    assert effect(one, two, "absolute").value == one.value


def test_steps_are_compared_within_themselves() -> None:
    """Simpson: the metric rises with the canary's share, and the canary does nothing."""
    rng = np.random.default_rng(6)
    whole, effects = np.zeros((2, BUCKETS)), []
    for share, rate in ((0.1, 0.2), (0.5, 0.4)):
        canary = np.arange(BUCKETS) < share * BUCKETS
        numerator, denominator = drawn(rng, rate)
        effects.append(
            effect(ratio(numerator, denominator, canary), ratio(numerator, denominator, ~canary), "relative")
        )
        whole += np.stack([numerator, denominator]) * np.where(canary, 1, -1)
    pooled = [whole * np.where(whole[1] > 0, 1, 0), -whole * np.where(whole[1] < 0, 1, 0)]
    naive = math.prod(
        (one[0].sum() / one[1].sum()) ** power for one, power in zip(pooled, (1, -1), strict=True)
    )
    found = combined(effects)
    assert found is not None
    assert abs(found.value) < 3 * math.sqrt(found.variance)
    assert naive - 1 > 6 * math.sqrt(found.variance)


def test_the_same_clients_in_two_steps_are_no_new_ones() -> None:
    """Influences add up, variances would not: a step seen twice knows no more."""
    numerator, denominator = drawn(np.random.default_rng(7), 0.3)
    one = effect(
        ratio(numerator, denominator, halves()), ratio(numerator, denominator, ~halves()), "absolute"
    )
    twice = combined([one, one])
    assert twice is not None
    assert twice.value == pytest.approx(one.value)
    assert twice.variance == pytest.approx(one.variance)


def known(value: float, variance: float, exposures: float) -> Effect:
    return Effect(value, np.array([math.sqrt(variance)]), exposures)


def test_a_sequence_is_the_papers() -> None:
    """As equation (9) of arXiv 2103.06476v7 is written, with its t and rho."""
    alpha, planned, t, sigma = 0.05, 5000.0, 1234.0, 0.7
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned)
    half = sigma * math.sqrt(
        2 * (t * rho**2 + 1) / (t**2 * rho**2) * math.log(math.sqrt(t * rho**2 + 1) / alpha)
    )
    found = sequence(known(0.1, sigma**2 / t, t), alpha=alpha, planned=planned)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-12)


def test_one_side_is_tighter_than_two() -> None:
    one = known(0.1, 0.0001, 1000.0)
    both = sequence(one, alpha=0.05, planned=1000.0)
    low, high = (sequence(one, alpha=0.05, planned=1000.0, sides=side) for side in ("low", "high"))
    assert both.low < low.low < 0.1 < high.high < both.high
    assert low.high == math.inf
    assert high.low == -math.inf


def test_a_sequence_is_tightest_about_where_it_was_planned_to_be() -> None:
    at = {
        planned: sequence(known(0.0, 1 / 1000, 1000.0), alpha=0.05, planned=planned).high
        for planned in (10.0, 1000.0, 100_000.0)
    }
    assert min(at, key=lambda planned: at[planned]) == 1000.0


@pytest.mark.parametrize("found", [None, Effect(0.0, NOTHING, 10.0)])
def test_nothing_known_is_an_interval_without_ends(found: Effect | None) -> None:
    interval = sequence(found, alpha=0.05, planned=1000.0)
    assert (interval.low, interval.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(("alpha", "planned"), [(0.0, 1.0), (1.0, 1.0), (0.05, 0.0)])
def test_nonsense_is_refused(alpha: float, planned: float) -> None:
    with pytest.raises(ValueError, match="need 0 < alpha < 1"):
        sequence(None, alpha=alpha, planned=planned)


def missed(looks: Callable[[np.random.Generator], list[Effect]], runs: int) -> tuple[float, float]:
    """Share of runs in which 0 is left at any look: by the low side of a sequence, and by a z-test."""
    rng = np.random.default_rng(8)
    left = np.zeros(2)
    for _ in range(runs):
        seen = looks(rng)
        left += (
            any(sequence(one, alpha=0.05, planned=4000.0, sides="low").low > 0 for one in seen),
            any(one.value > 1.6449 * math.sqrt(one.variance) for one in seen),
        )
    return float(left[0] / runs), float(left[1] / runs)


def test_looking_all_the_time_costs_nothing() -> None:
    """A growing canary, clients that differ and come again, a season: no effect, 40 looks."""

    def looks(rng: np.random.Generator) -> list[Effect]:
        place, rate = rng.permutation(BUCKETS), rng.beta(2, 6, BUCKETS)
        ended: list[Effect] = []
        seen = []
        for share, steps in ((0.1, 10), (0.25, 10), (0.5, 20)):
            canary = place < share * BUCKETS
            sums = np.zeros((2, BUCKETS))
            for step in range(steps):
                sums += drawn(rng, rate * (0.8 + 0.2 * math.sin(step)), 1.0)
                one, two = (ratio(sums[0], sums[1], arm) for arm in (canary, ~canary))
                now = effect(one, two, "relative")
                if (found := combined([*ended, now])) is not None:
                    seen.append(found)
            ended.append(now)
        return seen

    sequences, z_tests = missed(looks, 400)
    assert sequences <= 0.05
    assert z_tests > 0.15


def test_what_was_so_before_is_taken_out() -> None:
    """CUPED: the same effect by less variance, and no effect where there is none."""
    rng = np.random.default_rng(9)
    rate = rng.beta(2, 6, BUCKETS)
    before = drawn(rng, rate, 200.0)
    after = drawn(rng, np.clip(rate * np.where(halves(), 1.1, 1.0), 0, 1), 200.0)

    def seen(metric: tuple[Floats, Floats]) -> Effect:
        one, two = (ratio(*metric, arm) for arm in (halves(), ~halves()))
        return effect(one, two, "relative")

    plain, less = seen(after), seen(adjusted(after, before, halves()))
    assert less.variance < 0.3 * plain.variance
    assert abs(less.value - 0.1) < 3 * math.sqrt(less.variance)


def test_a_past_that_says_nothing_changes_nothing() -> None:
    after = drawn(np.random.default_rng(10), 0.3)
    same = adjusted(after, (np.ones(BUCKETS), np.ones(BUCKETS)), halves())
    assert np.array_equal(same[0], after[0])
    empty = adjusted(after, (np.zeros(BUCKETS), np.zeros(BUCKETS)), halves())
    assert np.array_equal(empty[0], after[0])
