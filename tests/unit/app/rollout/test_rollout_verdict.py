"""The verdict: each thing it asks for, on both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rollout_period import period

from app.rollout.assignment import BUCKETS
from app.rollout.evidence import CANARY, MEASURES, STABLE, UNSEEN_CANARY, Period, Traffic, compared, members
from app.rollout.plan import read_plan
from app.rollout.verdict import Moment, judge

PLAN = read_plan(
    """
    max_s = 1000.0
    stale_s = 10.0
    planned_searches = 50000
    [[steps]]
    ratio = 0.1
    min_searches = 1000
    min_s = 60.0
    [[steps]]
    ratio = 0.5
    min_searches = 1000
    min_s = 60.0
    [[steps]]
    ratio = 1.0
    [goal]
    metric = "changed"
    better = "lower"
    [[guardrails]]
    metric = "strict"
    better = "higher"
    margin = 0.05
    [[guardrails]]
    metric = "fallback"
    better = "lower"
    scale = "absolute"
    margin = 0.02
    tolerated = 0.01
    """
)
ENOUGH = Moment(step=0, in_step_s=100.0, in_rollout_s=100.0, data_age_s=1.0)
LAST = Moment(step=1, in_step_s=100.0, in_rollout_s=300.0, data_age_s=1.0)


def test_enough_of_a_step_is_the_next_step() -> None:
    verdict = judge(PLAN, [period()], ENOUGH)
    assert (verdict.action, verdict.why) == ("promote", "step 1 of 3 is done")
    assert [one.metric for one in verdict.findings] == ["changed", "strict", "fallback"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"in_step_s": 59.0}, "1 s to go"),
        ({"data_age_s": 11.0}, "stale data: anything was last counted 11 s ago"),
        ({"data_age_s": None}, "stale data: anything was last counted never"),
    ],
)
def test_what_is_too_early_or_too_old_promotes_nothing(changes: dict[str, Any], says: str) -> None:
    moment = replace(ENOUGH, **changes)
    verdict = judge(PLAN, [period()], moment)
    assert verdict.action == "insufficient"
    assert says in verdict.why


def test_on_the_limit_it_is_enough() -> None:
    assert judge(PLAN, [period()], Moment(0, 60.0, 60.0, 10.0)).action == "promote"


def test_too_few_searches_promote_nothing() -> None:
    verdict = judge(PLAN, [period(searches=0.9)], ENOUGH)
    assert verdict.action == "insufficient"
    assert "searches of the canary to go" in verdict.why
    assert judge(PLAN, [period(searches=1.2)], ENOUGH).action == "promote"


def test_without_any_data_there_is_no_verdict() -> None:
    empty = Period(period().split, {name: np.zeros((BUCKETS, len(MEASURES))) for name in ("all", "impacted")})
    verdict = judge(PLAN, [empty], Moment(0, 100.0, 100.0, None))
    assert verdict.action == "insufficient"
    assert all(one.gain is None and not one.harmless and not one.harmful for one in verdict.findings)


@pytest.mark.parametrize("name", ["changed", "strict"])
@pytest.mark.parametrize("moment", [ENOUGH, Moment(0, 1.0, 1.0, None)], ids=["enough", "early and stale"])
def test_shown_harm_goes_back_at_once(name: str, moment: Moment) -> None:
    worse = {"changed": 1.2, "strict": 0.8}[name]
    verdict = judge(PLAN, [period(canary={name: worse})], moment)
    assert verdict.action == "rollback"
    assert verdict.why == f"harm is shown: {name}"


@pytest.mark.parametrize(("factor", "action"), [(1.1, "promote"), (1.6, "rollback")])
def test_what_is_tolerated_is_no_harm(factor: float, action: str) -> None:
    """Fallback by .005 more is shown, and tolerated; by .03 more is not."""
    verdict = judge(PLAN, [period(canary={"fallback": factor}, searches=300.0)], ENOUGH)
    assert verdict.action == action
    (found,) = (one for one in verdict.findings if one.metric == "fallback")
    assert found.harm.high < 0


def test_a_share_that_is_off_promotes_nothing_and_harm_still_goes_back() -> None:
    verdict = judge(PLAN, [period(lost=0.1)], ENOUGH)
    assert verdict.action == "hold"
    assert "sample ratio mismatch" in verdict.why
    assert judge(PLAN, [period(lost=0.1, canary={"strict": 0.7})], ENOUGH).action == "rollback"


def all_fall_back(of: Period, *, canary: bool, stable: bool) -> Period:
    """Every search of an arm falls back, or none."""
    for sums in of.sums.values():
        for group, falls in ((CANARY, canary), (STABLE, stable)):
            shown = members(of.split)[group]
            sums[shown, MEASURES.index("fallback")] = sums[shown, 0] * falls
    return of


def test_an_arm_that_always_fails_is_as_bad_as_it_seems() -> None:
    """No search of either arm differs from the others of its arm: that is no reason to know nothing."""
    verdict = judge(PLAN, [all_fall_back(period(), canary=True, stable=False)], ENOUGH)
    assert (verdict.action, verdict.why) == ("rollback", "harm is shown: fallback")


@pytest.mark.parametrize(("searches", "shown"), [(0.3, []), (60.0, ["fallback"])])
def test_where_nothing_ever_fails_it_takes_searches_to_say_so(searches: float, shown: list[str]) -> None:
    """The canary has some 300 searches, or 60,000."""
    calm = all_fall_back(period(searches=searches), canary=False, stable=False)
    findings = judge(PLAN, [calm], ENOUGH).findings
    assert [one.gain for one in findings if one.metric == "fallback"] == [0.0]
    assert [one.metric for one in findings if one.metric == "fallback" and one.harmless] == shown
    assert not any(one.harmful for one in findings)


def test_to_everybody_only_with_a_gain() -> None:
    first = period(seed=1)
    same = judge(PLAN, [first, period(0.5, seed=2)], LAST)
    assert (same.action, same.why) == ("hold", "changed is not shown to be better")
    better = judge(PLAN, [period(canary={"changed": 0.9}), period(0.5, canary={"changed": 0.9})], LAST)
    assert better.action == "promote"


def test_to_everybody_only_within_every_margin() -> None:
    good = {"changed": 0.6}
    unsure = judge(PLAN, [period(0.5, canary={**good, "fallback": 1.25}, searches=1.5)], LAST)
    assert (unsure.action, unsure.why) == ("hold", "not shown to be within their margins: strict, fallback")
    sure = judge(PLAN, [period(0.5, canary={**good, "fallback": 1.15}, searches=200.0)], LAST)
    assert sure.action == "promote"


@pytest.mark.parametrize(("in_rollout_s", "action"), [(1000.0, "hold"), (1000.1, "rollback")])
def test_without_a_gain_in_time_it_goes_back(in_rollout_s: float, action: str) -> None:
    moment = Moment(1, 100.0, in_rollout_s, 1.0)
    verdict = judge(PLAN, [period(0.5)], moment)
    assert verdict.action == action
    if action == "rollback":
        assert "no gain is shown after 1000 s" in verdict.why


def test_a_pause_has_no_end_but_the_one_that_somebody_says() -> None:
    assert judge(PLAN, [period(0.5)], Moment(1, 100.0, 1e9, 1.0, paused=True)).action == "hold"
    assert judge(PLAN, [period(0.5)], Moment(1, 100.0, 1e9, None, paused=True)).action == "insufficient"


def test_impacted_searches_are_compared_with_those_that_would_have_been() -> None:
    one = period(0.5, canary={"changed": 0.8}, holdout=0.2)
    kinds: tuple[Traffic, ...] = ("all", "impacted")
    for traffic in kinds:
        against_holdout = compared([one], "changed", control=UNSEEN_CANARY, traffic=traffic)
        assert against_holdout is not None
        assert against_holdout.value == pytest.approx(-0.2, abs=0.03)
    dealt = members(one.split)
    assert not (dealt[CANARY] & dealt[UNSEEN_CANARY]).any()
    assert (dealt[CANARY] | dealt[STABLE]).sum() == 0.8 * BUCKETS


def test_a_few_buckets_say_nothing() -> None:
    """Twenty clients who searched a lot are not enough for a variance."""
    one = period()
    shown = np.flatnonzero(members(one.split)[CANARY])
    quiet = {name: sums.copy() for name, sums in one.sums.items()}
    for sums in quiet.values():
        sums[shown[19:]] = 0.0
    assert compared([Period(one.split, quiet)], "changed") is None
    assert compared([one], "changed") is not None
