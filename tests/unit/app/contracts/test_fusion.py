from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.fusion import (
    RRF_K,
    factors,
    found_shares,
    fuse_ranks,
    fuse_scores,
    geometric_mean,
    log_reward,
    phi,
    rank_weight,
    recall_weight,
)

positive = st.floats(min_value=1e-300, max_value=1.0)
anything = st.one_of(st.none(), st.floats())
rankings = st.lists(st.text("abcdefgh", min_size=1, max_size=2), unique=True, max_size=12)
unusable = st.one_of(st.just(math.nan), st.just(math.inf), st.floats(max_value=0.0))


def test_phi_is_the_power_of_the_ratio_inside_the_clip() -> None:
    assert phi(0.4, 0.2, 1.0, 10.0) == pytest.approx(2.0)
    assert phi(0.4, 0.2, 0.5, 10.0) == pytest.approx(math.sqrt(2.0))
    assert phi(0.1, 0.2, 2.0, 10.0) == pytest.approx(0.25)


def test_phi_is_clipped_on_both_sides() -> None:
    assert phi(1.0, 1e-9, 3.0, 2.0) == 2.0
    assert phi(1e-9, 1.0, 3.0, 2.0) == 0.5


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, 0.0, -0.5])
def test_phi_is_exactly_neutral_for_what_is_missing_or_no_positive_number(bad: float | None) -> None:
    assert phi(bad, 0.5, 1.0, 2.0) == 1.0
    assert phi(0.5, bad, 1.0, 2.0) == 1.0
    if bad is not None:
        assert phi(0.9, 0.5, bad, 2.0) == 1.0


@given(score=positive, clip=st.floats(min_value=1.0, max_value=1e6))
def test_phi_is_exactly_neutral_at_the_mean_and_at_weight_zero(score: float, clip: float) -> None:
    assert phi(score, score, 1.0, clip) == 1.0
    assert phi(score, 0.5, 0.0, clip) == 1.0


@given(score=anything, mean=anything, weight=st.floats(), clip=st.floats(min_value=1.0, max_value=1e6))
def test_phi_never_leaves_its_blast_radius(
    score: float | None, mean: float | None, weight: float, clip: float
) -> None:
    assert 1.0 / clip <= phi(score, mean, weight, clip) <= clip


@given(low=positive, high=positive, weight=st.floats(min_value=0.01, max_value=5))
def test_phi_grows_with_the_score(low: float, high: float, weight: float) -> None:
    low, high = sorted((low, high))
    assert phi(low, 0.3, weight, 4.0) <= phi(high, 0.3, weight, 4.0)


@pytest.mark.parametrize("clip", [0.5, 0.0, -1.0, math.nan, math.inf])
def test_phi_refuses_a_clip_that_is_none(clip: float) -> None:
    with pytest.raises(ValueError, match="clip"):
        phi(0.5, 0.5, 1.0, clip)


def test_geometric_mean_leaves_out_what_is_no_score() -> None:
    assert geometric_mean([0.1, None, 0.4, math.nan, 0.0, -1.0]) == pytest.approx(0.2)
    assert geometric_mean([]) is None
    assert geometric_mean([None, 0.0]) is None


def test_the_factors_of_all_candidates_multiply_to_one() -> None:
    scores = [0.9, 0.2, 0.05, 0.4]
    mean = geometric_mean(scores)
    assert math.prod(phi(score, mean, 0.7, 1e9) for score in scores) == pytest.approx(1.0)


def test_log_reward_is_its_formula() -> None:
    expected = 1.5 * math.log(0.8) - math.log(0.2) + 0.3 * (math.log(0.8) - math.log(0.1))
    assert log_reward(0.8, 0.2, 0.1, gamma=0.5, alpha=0.3) == pytest.approx(expected)


def test_log_reward_is_what_phi_moves_a_clicked_document_past_a_skipped_one() -> None:
    gain = math.log(phi(0.8, 0.4, 1.0, 1e9)) - math.log(phi(0.2, 0.4, 1.0, 1e9))
    assert log_reward(0.8, 0.2, 0.5, gamma=0.0, alpha=0.0) == pytest.approx(gain)


def test_log_reward_is_finite_at_zero_and_refuses_what_is_no_evidence() -> None:
    assert math.isfinite(log_reward(0.0, 0.0, 0.0, gamma=1.0, alpha=1.0))
    for bad in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError, match="s_neg"):
            log_reward(0.5, bad, 0.5, gamma=0.0, alpha=0.0)


def test_fused_scores_are_weighted_reciprocal_ranks() -> None:
    fused = dict(fuse_ranks([["a", "b"], ["b", "c"]], [1.0, 0.5]))
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 0.5 / 61, "c": 0.5 / 62})
    assert next(iter(fused)) == "b"


def test_what_only_rewrites_found_counts_by_their_weight() -> None:
    original = [("a", 2.0)]
    runs = [original, [("a", 1.0), ("b", 1.0)], [("b", 3.0), ("c", 1.0)], [("d", 1.0)]]
    assert found_shares(runs, [1.0, 0.2, 0.3, math.nan]) == {"b": 0.5, "c": 0.3}
    assert found_shares(runs, [1.0, 0.9, 0.9, 2.0]) == {"b": 1.0, "c": 0.9, "d": 1.0}
    assert found_shares([original], [1.0]) == {}
    fused = dict(fuse_ranks([["a", "b"], ["a"]], [1.0, 1.0], shares=[{"b": 0.5}, {}]))
    assert fused == {"a": 2 / (RRF_K + 1), "b": 0.5 / (RRF_K + 2)}


def test_ties_keep_the_originals_order_then_first_appearance() -> None:
    assert [doc for doc, _ in fuse_ranks([["a", "b"], ["b", "a"]], [1.0, 1.0])] == ["a", "b"]
    assert [doc for doc, _ in fuse_ranks([["a"], ["x"], ["y"]], [1.0, 1.0, 1.0])] == ["a", "x", "y"]


def test_a_repeated_document_counts_once() -> None:
    assert fuse_ranks([["a", "a", "b"]], [1.0]) == [("a", 1 / (RRF_K + 1)), ("b", 1 / (RRF_K + 2))]


@given(original=rankings, rewrite=rankings, weight=unusable)
def test_an_unusable_weight_leaves_the_original_bit_for_bit(
    original: list[str], rewrite: list[str], weight: float
) -> None:
    assert fuse_ranks([original, rewrite], [1.0, weight]) == fuse_ranks([original], [1.0])
    assert [doc for doc, _ in fuse_ranks([original, rewrite], [1.0, weight])] == original


@given(original=rankings, rewrite=rankings, weight=st.floats(min_value=0.0, max_value=10.0))
def test_no_document_is_lost_or_repeated(original: list[str], rewrite: list[str], weight: float) -> None:
    found = [doc for doc, _ in fuse_ranks([original, rewrite], [1.0, weight])]
    assert len(found) == len(set(found))
    assert set(found) == set(original) | (set(rewrite) if weight > 0 else set())


@given(original=rankings, weight=st.floats(min_value=0.0, max_value=10.0))
def test_an_identical_rewrite_changes_nothing(original: list[str], weight: float) -> None:
    assert [doc for doc, _ in fuse_ranks([original, original], [1.0, weight])] == original


@pytest.mark.parametrize(
    ("given_rankings", "weights"), [([], []), ([["a"]], [1.0, 1.0]), ([["a"]], [0.0]), ([["a"]], [math.nan])]
)
def test_fuse_ranks_refuses_what_it_cannot_mean(
    given_rankings: list[list[str]], weights: list[float]
) -> None:
    with pytest.raises(ValueError, match="weight"):
        fuse_ranks(given_rankings, weights)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.5, 0.5), (1.0, 2.0), (7.0, 2.0), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0)],
)
def test_recall_weight_is_a_power_of_confidence_up_to_the_ceiling(confidence: float, expected: float) -> None:
    assert recall_weight(confidence, ceiling=2.0, sharpness=2.0) == expected


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.2, 0.0), (0.19, 0.0), (0.4, 0.5), (1.0, 2.0), (7.0, 2.0), (math.nan, 0.0), (math.inf, 0.0)],
)
def test_up_to_the_break_even_a_rewrite_weighs_nothing_at_a_ranking_stage(
    confidence: float, expected: float
) -> None:
    weight = rank_weight(confidence, 2.0, break_even=0.2)
    assert weight == pytest.approx(expected, abs=1e-12)
    assert weight > 0 or expected == 0


runs = st.lists(
    st.tuples(st.text("abcdefgh", min_size=1, max_size=2), st.floats(-10, 10)),
    max_size=12,
    unique_by=lambda x: x[0],
).map(lambda run: sorted(run, key=lambda item: -item[1]))


def test_fused_scores_are_weighted_sums_with_what_is_missing() -> None:
    fused = fuse_scores([[("a", 3.0), ("b", 1.0)], [("c", 2.0), ("b", 1.5)]], [1.0, 2.0], [0.0, 0.5])
    assert fused == [("a", 4.0), ("b", 4.0), ("c", 4.0)]
    assert fuse_scores([[("a", 3.0)], [("b", 2.0)]], [1.0, 2.0], [0.0, 0.0]) == [("b", 4.0), ("a", 3.0)]


@given(first=runs, second=runs, weight=unusable)
def test_an_unusable_weight_leaves_the_originals_scores_bit_for_bit(
    first: list[tuple[str, float]], second: list[tuple[str, float]], weight: float
) -> None:
    assert fuse_scores([first, second], [1.0, weight], [0.0, 0.0]) == first


@given(first=runs, second=runs, weight=st.floats(0.01, 10))
def test_no_document_is_lost_by_score_fusion(
    first: list[tuple[str, float]], second: list[tuple[str, float]], weight: float
) -> None:
    fused = fuse_scores([first, second], [1.0, weight], [-10.0, -10.0])
    assert {doc for doc, _ in fused} == {doc for doc, _ in (*first, *second)}
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)


def test_score_fusion_needs_a_weight_for_each_run() -> None:
    with pytest.raises(ValueError, match="one weight per ranking"):
        fuse_scores([[("a", 1.0)]], [1.0, 2.0], [0.0])


# Scores of one to four rewrites for the same candidates, and a weight for each rewrite.
tables = st.integers(0, 12).flatmap(
    lambda documents: st.lists(
        st.tuples(st.lists(anything, min_size=documents, max_size=documents), st.floats()),
        min_size=1,
        max_size=4,
    )
)
clips = st.floats(min_value=1.0, max_value=1e6)


def test_factors_of_several_rewrites_multiply_up_to_the_clip() -> None:
    scores = [[0.4, 0.1], [0.9, 0.4]]
    expected = [
        phi(0.4, 0.2, 0.5, 1e9) * phi(0.9, 0.6, 1.0, 1e9),
        phi(0.1, 0.2, 0.5, 1e9) * phi(0.4, 0.6, 1.0, 1e9),
    ]
    assert factors(scores, [0.5, 1.0], 1e9) == pytest.approx(expected)
    assert factors(scores, [50.0, 50.0], 2.0) == [2.0, 0.5]


@given(score=st.lists(anything, max_size=12), weight=st.floats(), clip=clips)
def test_one_rewrite_has_the_factor_of_phi(score: list[float | None], weight: float, clip: float) -> None:
    mean = geometric_mean(score)
    assert factors([score], [weight], clip) == [phi(s, mean, weight, clip) for s in score]


@given(table=tables, clip=clips)
def test_factors_never_leave_the_blast_radius_however_many_rewrites(
    table: list[tuple[list[float | None], float]], clip: float
) -> None:
    found = factors([scores for scores, _ in table], [weight for _, weight in table], clip)
    assert len(found) == len(table[0][0])
    assert all(1.0 / clip <= factor <= clip for factor in found)


@given(table=tables, weight=unusable, clip=clips)
def test_rewrites_of_unusable_weight_are_neutral_bit_for_bit(
    table: list[tuple[list[float | None], float]], weight: float, clip: float
) -> None:
    assert factors([scores for scores, _ in table], [weight] * len(table), clip) == [1.0] * len(table[0][0])


@given(table=tables, clip=clips, place=st.integers(0, 11), bad=st.one_of(st.none(), unusable))
def test_a_candidate_without_a_usable_score_is_neutral_bit_for_bit(
    table: list[tuple[list[float | None], float]], clip: float, place: int, bad: float | None
) -> None:
    rows = [[*scores[:place], bad, *scores[place:]] for scores, _ in table]
    found = factors(rows, [weight for _, weight in table], clip)
    assert found[min(place, len(table[0][0]))] == 1.0


@given(table=tables, clip=clips, data=st.data())
def test_permuting_candidates_permutes_factors(
    table: list[tuple[list[float | None], float]], clip: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(table[0][0]))))
    weights = [weight for _, weight in table]
    found = factors([scores for scores, _ in table], weights, clip)
    permuted = factors([[scores[place] for place in order] for scores, _ in table], weights, clip)
    assert permuted == [found[place] for place in order]


@pytest.mark.parametrize(("scores", "weights"), [([], []), ([[0.5]], []), ([[0.5], [0.5, 0.5]], [1.0, 1.0])])
def test_factors_refuse_what_they_cannot_mean(scores: list[list[float]], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="one weight for each"):
        factors(scores, weights, 2.0)
