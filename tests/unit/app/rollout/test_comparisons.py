"""Each pair of groups, on all traffic and on what was impacted."""

from __future__ import annotations

import pytest
from rollout_period import RATES, period

from app.rollout.comparisons import Comparison, comparisons
from app.rollout.plan import read_plan

PLAN = read_plan(
    """
    planned_searches = 50000
    [[steps]]
    ratio = 0.5
    [[steps]]
    ratio = 1.0
    [[guardrails]]
    metric = "fallback"
    better = "lower"
    scale = "absolute"
    margin = 0.02
    """
)


def of(found: list[Comparison], pair: str, traffic: str, metric: str) -> Comparison:
    (one,) = (c for c in found if (c.pair, c.traffic, c.metric) == (pair, traffic, metric))
    return one


def test_every_pair_and_every_metric_is_there() -> None:
    found = comparisons(PLAN, [period(0.5, holdout=0.2)])
    assert len(found) == len({(one.pair, one.traffic, one.metric) for one in found}) == 5 * 2
    assert not [one for one in found if one.pair == "canary against stable" and one.traffic == "impacted"]


@pytest.mark.parametrize(
    ("pair", "change"),
    [
        ("canary against stable", -0.2),
        ("canary against the holdout", -0.2),
        ("stable against the holdout", 0.0),
    ],
)
def test_what_only_the_canary_does_is_seen_where_it_is(pair: str, change: float) -> None:
    found = comparisons(PLAN, [period(0.5, canary={"changed": 0.8}, holdout=0.2)])
    one = of(found, pair, "all", "changed")
    assert one.change == pytest.approx(change, abs=0.02)
    assert one.interval.low < change < one.interval.high
    shown = change if pair.startswith("canary") else 0.0
    assert one.control == pytest.approx(RATES["changed"], abs=0.01)
    assert one.treated == pytest.approx(RATES["changed"] * (1 + shown), abs=0.01)


def test_absolute_changes_are_differences() -> None:
    found = comparisons(PLAN, [period(0.5, canary={"fallback": 2.0})])
    one = of(found, "canary against stable", "all", "fallback")
    assert one.scale == "absolute"
    assert one.change == pytest.approx(RATES["fallback"], abs=0.005)


def test_without_a_holdout_it_is_compared_with_nothing() -> None:
    one = of(comparisons(PLAN, [period(0.5)]), "canary against the holdout", "impacted", "changed")
    assert (one.control, one.change) == (None, None)


def test_what_buckets_were_like_before_makes_it_surer() -> None:
    """CUPED: the same change by a narrower interval; a past that is too thin is left alone."""

    def width(before: float) -> tuple[float, float]:
        step = period(0.5, canary={"changed": 0.9}, before=before, searches=200.0)
        one = of(comparisons(PLAN, [step]), "canary against stable", "all", "changed")
        assert one.change is not None
        return one.change, one.interval.high - one.interval.low

    long, short = width(200.0), width(1e-4)
    assert long[0] == pytest.approx(-0.1, abs=0.01)
    assert long[1] < 0.5 * short[1]
