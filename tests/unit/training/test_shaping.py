"""Shapings by their closed forms, and which of them keep the order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.shaping import (
    SHAPINGS,
    clipped,
    distinct_ratio,
    log_sigmoid,
    mean_of,
    preference_as_reward,
    with_distinct_ngrams,
    worst_of,
)

REWARDS = [-3.0, 0.0, 2.0]


def test_closed_forms() -> None:
    assert preference_as_reward(REWARDS, 0.5) == pytest.approx([1 / (1 + math.exp(0.5 - r)) for r in REWARDS])
    assert log_sigmoid(REWARDS, 0.5) == pytest.approx([-math.log(1 + math.exp(0.5 - r)) for r in REWARDS])
    assert clipped(REWARDS, 0.5) == [-3.0, 0.0, 1.5]
    assert SHAPINGS["delta"](REWARDS, 0.5) == [-3.5, -0.5, 1.5]
    assert SHAPINGS["none"](REWARDS, 0.5) == REWARDS


@pytest.mark.parametrize("name", ["par", "log_sigmoid", "delta", "clip"])
@given(rewards=st.lists(st.floats(-40, 40), min_size=2), reference=st.floats(-40, 40))
def test_no_shaping_turns_the_order_round(name: str, rewards: list[float], reference: float) -> None:
    shaped = SHAPINGS[name](sorted(rewards), reference)
    assert shaped == sorted(shaped)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_bounds_hold_however_far_the_reward_is(value: float, reference: float) -> None:
    assert 0 <= preference_as_reward([value], reference)[0] <= 1
    assert log_sigmoid([value], reference)[0] <= 0
    assert clipped([value], reference)[0] <= reference + 1


def test_an_ensemble_is_the_mean_or_the_least_for_each_rewrite() -> None:
    members = [[1.0, 4.0], [3.0, -2.0]]
    assert mean_of(members) == [2.0, 1.0]
    assert worst_of(members) == [1.0, -2.0]
    with pytest.raises(ValueError, match="relevance model"):
        mean_of([])
    with pytest.raises(ValueError, match="relevance model"):
        worst_of([[1.0], [1.0, 2.0]])


def test_repetition_costs_its_share_of_ngrams() -> None:
    words = ["nurse", "job", "nurse", "job", "nurse"]
    assert distinct_ratio(words, 2) == 0.5
    assert distinct_ratio(["nurse"], 2) == 1.0
    assert with_distinct_ngrams(1.0, words) == pytest.approx(1.0 + math.log(0.5))
