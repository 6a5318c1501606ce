"""Pairs are the best against the worst, and nothing that says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.pairs import Pair, Rated, pairs_of


def rated(*rewards: float, floored: tuple[int, ...] = ()) -> list[Rated]:
    return [Rated(f"rewrite {n}", reward, n in floored) for n, reward in enumerate(rewards)]


def test_the_best_are_set_against_the_worst() -> None:
    assert pairs_of(rated(1.0, 5.0, 2.0, 0.0, 4.0), k=2, tie=0.0) == [Pair(1, 3, 5.0), Pair(4, 0, 3.0)]
    assert pairs_of(rated(1.0, 5.0, 2.0), k=2, tie=0.0) == [Pair(1, 0, 4.0)]


def test_a_tie_is_no_pair_and_its_border_is_one_too() -> None:
    assert pairs_of(rated(1.0, 2.0), k=1, tie=1.0) == []
    assert pairs_of(rated(1.0, 2.0), k=1, tie=0.99) == [Pair(1, 0, 1.0)]


def test_what_the_floor_holds_may_lose_and_never_win() -> None:
    assert pairs_of(rated(-40.0, 1.0, floored=(0,)), k=1, tie=0.0) == [Pair(1, 0, 41.0)]
    assert pairs_of(rated(-40.0, -41.0, floored=(0, 1)), k=1, tie=0.0) == []


def test_a_text_drawn_twice_counts_once() -> None:
    twice = [Rated("nurse", 3.0, floored=False)] * 2 + [Rated("welder", 1.0, floored=False)]
    assert pairs_of(twice, k=2, tie=0.0) == [Pair(0, 2, 2.0)]
    assert pairs_of(twice[:2], k=1, tie=0.0) == []
    assert pairs_of([], k=1, tie=0.0) == []


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(-5, 5), st.booleans()), max_size=12),
    st.integers(1, 6),
    st.floats(0, 3),
)
def test_no_rewrite_is_in_two_pairs_and_every_winner_is_better(
    drawn: list[tuple[str, float, bool]], k: int, tie: float
) -> None:
    rewrites = [Rated(text, reward, floored=held) for text, reward, held in drawn]
    found = pairs_of(rewrites, k=k, tie=tie)
    places = [place for pair in found for place in (pair.chosen, pair.rejected)]
    assert len(set(places)) == len(places) <= 2 * k
    for pair in found:
        assert rewrites[pair.chosen].reward - rewrites[pair.rejected].reward == pair.margin > tie
        assert rewrites[pair.chosen].text != rewrites[pair.rejected].text
        assert not rewrites[pair.chosen].floored
    assert [pair.margin for pair in found] == sorted((pair.margin for pair in found), reverse=True)


@pytest.mark.parametrize(("k", "tie"), [(0, 0.0), (1, -0.1)])
def test_numbers_that_mean_nothing_are_refused(k: int, tie: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        pairs_of(rated(1.0, 2.0), k=k, tie=tie)
