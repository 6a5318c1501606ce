from __future__ import annotations

import math

import numpy as np
import pytest

from training.measures import NDCG, RECALL, bootstrap, judged, per_query

QRELS = {"q1": {"a": 3, "b": 1, "c": 0}, "q2": {"a": 1}, "q3": {"a": 0}}


def test_ndcg_takes_the_grade_as_gain_and_recall_every_grade_above_zero() -> None:
    values = per_query(QRELS, ["q1", "q2"], {"q1": ["b", "x", "a"], "q2": ["x", "a"]})
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    assert values[NDCG] == pytest.approx([(1 / math.log2(2) + 3 / math.log2(4)) / ideal, 1 / math.log2(3)])
    assert values[RECALL] == pytest.approx([1.0, 1.0])


def test_a_query_that_found_nothing_counts_zero() -> None:
    values = per_query(QRELS, ["q1", "q2"], {"q2": ["a"], "q1": []})
    assert list(values[NDCG]) == [0.0, 1.0]
    assert list(per_query(QRELS, ["q1", "q2"], {"q2": ["a"]})[RECALL]) == [0.0, 1.0]


def test_order_alone_counts_down_to_the_cut_offs() -> None:
    assert per_query(QRELS, ["q2"], {"q2": [*map(str, range(9)), "a"]})[NDCG][0] == pytest.approx(
        1 / math.log2(11)
    )
    assert per_query(QRELS, ["q2"], {"q2": [*map(str, range(10)), "a"]})[NDCG][0] == 0.0
    assert per_query(QRELS, ["q2"], {"q2": [*map(str, range(99)), "a"]})[RECALL][0] == 1.0
    assert per_query(QRELS, ["q2"], {"q2": [*map(str, range(100)), "a"]})[RECALL][0] == 0.0


def test_queries_without_a_relevant_document_are_not_judged() -> None:
    assert judged(QRELS, ["q3", "q2", "unknown", "q1"]) == ["q2", "q1"]


def test_the_interval_covers_the_mean_and_is_repeatable() -> None:
    values = np.random.default_rng(0).random(400)
    first, again, other = bootstrap(values), bootstrap(values), bootstrap(values, seed=1)
    assert first == again
    assert first != other
    assert first.low < values.mean() < first.high
    # The percentile interval of a mean of 400 is close to the normal one.
    assert first.high - first.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_a_constant_difference_has_no_width() -> None:
    estimate = bootstrap(np.full(10, 0.25))
    assert (estimate.mean, estimate.low, estimate.high) == (0.25, 0.25, 0.25)


def test_an_average_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no value"):
        bootstrap(np.array([]))
