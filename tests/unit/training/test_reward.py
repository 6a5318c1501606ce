"""The reward: its closed form, its bounds, and a floor that nothing can buy back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.fusion import SCORE_FLOOR
from app.contracts.reasons import Drop
from training.reward import (
    Evidence,
    RewardKnobs,
    length_term,
    ranking_term,
    reward,
    truncation_term,
    weighted_mean,
)

KNOBS = RewardKnobs(gamma=0.5, alpha=0.25, bound=12.0)
means = st.floats(0, 1)


def test_the_ratio_is_the_algebra_of_the_ranker() -> None:
    expected = 1.5 * math.log(0.4) - math.log(0.1) + 0.25 * (math.log(0.4) - math.log(0.02))
    assert ranking_term(Evidence(0.4, 0.1, 0.02), KNOBS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("positive", math.log(0.4)), ("difference", 1.5 * 0.4 - 0.1 + 0.25 * (0.4 - 0.02))],
)
def test_the_other_forms_are_what_they_are_called(form: str, expected: float) -> None:
    knobs = replace(KNOBS, form=form)  # type: ignore[arg-type]
    assert ranking_term(Evidence(0.4, 0.1, 0.02), knobs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(0.4, None, 0.02), 1.5 * math.log(0.4) + 0.25 * math.log(0.4 / 0.02)),
        (Evidence(0.4, 0.1, None), 1.5 * math.log(0.4) - math.log(0.1)),
        (Evidence(0.4, None, None), 1.5 * math.log(0.4)),
    ],
)
def test_what_an_instance_lacks_is_left_out(evidence: Evidence, expected: float) -> None:
    assert ranking_term(evidence, KNOBS) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_missing_evidence_is_never_a_number(bad: float) -> None:
    with pytest.raises(ValueError, match="s_pos"):
        reward(Evidence(bad, 0.1, 0.1), tokens=3, truncated=False, drop=None, knobs=KNOBS)


@given(means, st.none() | means, st.none() | means, st.sampled_from(["ratio", "positive", "difference"]))
def test_the_ranking_term_is_bounded(pos: float, neg: float | None, rand: float | None, form: str) -> None:
    knobs = replace(KNOBS, form=form, bound=5.0)  # type: ignore[arg-type]
    assert -5.0 <= ranking_term(Evidence(pos, neg, rand), knobs) <= 5.0


@given(st.floats(SCORE_FLOOR, 0.9), st.floats(SCORE_FLOOR, 1), st.floats(SCORE_FLOOR, 1))
def test_more_relevance_to_what_was_clicked_is_never_worth_less(pos: float, neg: float, rand: float) -> None:
    more = ranking_term(Evidence(pos + 0.1, neg, rand), KNOBS)
    assert more >= ranking_term(Evidence(pos, neg, rand), KNOBS)


def test_matching_everything_is_worth_less_than_matching_what_was_clicked() -> None:
    everything = ranking_term(Evidence(0.9, 0.9, 0.9), KNOBS)
    assert everything < ranking_term(Evidence(0.9, 0.9, 0.01), KNOBS)
    assert everything < ranking_term(Evidence(0.9, 0.01, 0.9), KNOBS)


def test_length_costs_from_the_first_token_that_is_not_free_up_to_the_bound() -> None:
    assert [length_term(tokens, KNOBS) for tokens in (0, 12, 13, 22)] == pytest.approx([0.0, 0.0, 0.1, 1.0])
    assert length_term(10_000, KNOBS) == KNOBS.bound


def test_a_truncated_rewrite_pays_for_it_where_that_is_no_floor() -> None:
    knobs = replace(KNOBS, floored=frozenset(Drop) - {Drop.TRUNCATED})
    whole = reward(Evidence(0.4, 0.1, 0.1), tokens=3, truncated=False, drop=None, knobs=knobs)
    cut = reward(Evidence(0.4, 0.1, 0.1), tokens=3, truncated=True, drop=Drop.TRUNCATED, knobs=knobs)
    assert whole.total - cut.total == pytest.approx(knobs.truncation)
    assert cut.floored is None
    assert truncation_term(truncated=False, knobs=knobs) == 0


@given(means, means, means, st.sampled_from(Drop), st.integers(0, 300))
def test_no_relevance_buys_back_what_the_floor_holds(
    pos: float, neg: float, rand: float, drop: Drop, tokens: int
) -> None:
    held = reward(Evidence(1.0, SCORE_FLOOR, SCORE_FLOOR), tokens=0, truncated=False, drop=drop, knobs=KNOBS)
    free = reward(Evidence(pos, neg, rand), tokens=tokens, truncated=True, drop=None, knobs=KNOBS)
    assert held.total < free.total
    assert held.floored is drop
    assert held.ranking == KNOBS.bound  # logged as it is


@given(pos=means, neg=means, rand=means, tokens=st.integers(0, 300), truncated=st.booleans())
def test_the_total_is_the_sum_of_what_is_logged(
    pos: float, neg: float, rand: float, tokens: int, *, truncated: bool
) -> None:
    found = reward(Evidence(pos, neg, rand), tokens=tokens, truncated=truncated, drop=None, knobs=KNOBS)
    assert found.total == pytest.approx(found.ranking - found.length - found.truncation)


@pytest.mark.parametrize("wrong", [{"floor": -26.0}, {"alpha": -0.1}, {"gamma": -1.5}, {"token_cost": -1.0}])
def test_constants_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        replace(KNOBS, **wrong)


def test_rates_weigh() -> None:
    assert weighted_mean([0.2, 0.8], [1.0, 3.0]) == pytest.approx(0.65)
    assert weighted_mean([], []) is None
    with pytest.raises(ValueError, match="weights"):
        weighted_mean([0.1], [])
