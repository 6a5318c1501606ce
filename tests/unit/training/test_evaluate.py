from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training.curve import draw
from training.datasets.beir import Query, Task
from training.evaluate import Rewrite, Row, evaluate, gain_curve, oracle_answers, ranked
from training.measures import NDCG
from training.retrieval import Rankings, Run

FOUND = {
    "rn": ["x", "y"],
    "Registered Nurses": ["nurse"],
    "chef": ["cook", "x"],
    "Pilots": ["plane"],
    "pilot": ["x"],
}
TASK = Task(
    (),
    (
        Query("q1", "rn", {"onet_code": "29"}),
        Query("q2", "chef", {"onet_code": "35"}),
        Query("q3", "pilot"),
        Query("q4", "no relevant document"),
    ),
    {"q1": {"nurse": 1}, "q2": {"cook": 1}, "q3": {"plane": 1}, "q4": {"x": 0}},
)


class Told:
    """A retriever that finds what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def search(self, queries: Sequence[str], depth: int = 1000) -> list[Run]:
        self.asked += queries
        return [
            [(doc, 1.0 - 0.1 * rank) for rank, doc in enumerate(FOUND.get(query, []))][:depth]
            for query in queries
        ]


class Rewrites:
    """A rewriter with fixed answers: right about q1, wrong about q2, silent about q3."""

    def rewrite(self, queries: Sequence[str]) -> list[list[Rewrite]]:
        answers = {"rn": [Rewrite("Registered Nurses", 0.9)], "chef": [Rewrite("Pilots", 0.2)]}
        return [answers.get(query, []) for query in queries]


def rankings() -> Rankings:
    return Rankings(Told(), Told())


def row(rows: Sequence[Row], rewrite: str) -> Row:
    [found] = [one for one in rows if one.rewrite == rewrite]
    return found


def test_every_arm_is_measured_on_the_queries_with_relevant_documents() -> None:
    report = evaluate(
        TASK,
        rankings(),
        rewriter=Rewrites(),
        oracle={"q1": "Registered Nurses"},
        nearest={"q1": "Pilots", "q2": "Pilots", "q3": "Pilots"},
        retrievers=["bm25"],
    )
    arms = ["none", "nearest", "nearest_parallel", "alone", "parallel", "oracle", "oracle_parallel"]
    assert [one.rewrite for one in report.rows] == arms
    assert {one.queries for one in report.rows} == {3}
    assert report.facts == {"queries": 4, "without_relevant": 1, "abstained": 1, "oracle_unknown": 2}
    third = pytest.approx(1 / 3)
    assert row(report.rows, "none").ndcg == third
    assert row(report.rows, "nearest").ndcg == third
    assert row(report.rows, "oracle").over_nearest == third
    assert row(report.rows, "nearest").over_nearest_ci == (0.0, 0.0)
    assert row(report.rows, "alone").ndcg == third  # q1 won, q2 lost, q3 left as it was
    assert row(report.rows, "oracle").ndcg == pytest.approx(2 / 3)
    assert row(report.rows, "oracle").delta == third
    assert row(report.rows, "oracle").recall == pytest.approx(2 / 3)


def test_parallel_rewrites_are_fused_at_their_weights() -> None:
    silent = evaluate(TASK, rankings(), rewriter=Rewrites(), weigh=lambda _: 0.0, retrievers=["dense"])
    assert row(silent.rows, "parallel").ndcg == row(silent.rows, "none").ndcg
    assert row(silent.rows, "parallel").delta_ci == (0.0, 0.0)
    trusted = evaluate(TASK, rankings(), rewriter=Rewrites(), weigh=lambda c: c, retrievers=["dense"])
    # q1: x and y of the original keep their places, "nurse" ties with y at 0.9 and comes third.
    assert row(trusted.rows, "parallel").ndcg == pytest.approx((0.5 + 1 + 0) / 3)


def test_a_weight_of_zero_is_not_even_searched() -> None:
    told = Told()
    plans = [[("rn", 1.0), ("Pilots", 0.0)], [("chef", 1.0), ("Pilots", float("nan"))]]
    assert ranked(Rankings(told, Told()), "bm25", plans) == [["x", "y"], ["cook", "x"]]
    assert told.asked == ["rn", "chef"]


def test_the_hybrid_fuses_the_ranks_of_both() -> None:
    other = Told()
    other.search = lambda queries, depth=1000: [[("y", 5.0), ("z", 4.0)][:depth] for _ in queries]  # type: ignore[method-assign]
    assert ranked(Rankings(Told(), other), "hybrid", [[("rn", 1.0)]]) == [["y", "x", "z"]]


def test_a_rewrite_of_next_to_no_weight_leaves_the_hybrid_as_it_was() -> None:
    """Ranks are not continuous: what a rewrite adds at the end of a short list must not count as found."""
    told, other = Told(), Told()
    told.search = lambda queries, depth=1000: [  # type: ignore[method-assign]  # noqa: ARG005
        [("y", 5.0)] if query == "rn" else [("z", 4.0), ("w", 3.0)] for query in queries
    ]
    other.search = lambda queries, depth=1000: [  # type: ignore[method-assign]  # noqa: ARG005
        [("y", 0.9), ("x", 0.8), ("w", 0.7), ("z", 0.1)] for _ in queries
    ]
    rankings = Rankings(told, other)
    alone = ranked(rankings, "hybrid", [[("rn", 1.0)]])
    assert ranked(rankings, "hybrid", [[("rn", 1.0), ("Pilots", 1e-9)]]) == alone
    assert ranked(rankings, "hybrid", [[("rn", 1.0), ("Pilots", 1.0)]]) != alone


def test_a_text_is_searched_once_for_all_arms_and_calls() -> None:
    told = Told()
    shared = Rankings(told, told)
    for ceiling in (0.5, 1.0):
        evaluate(TASK, shared, rewriter=Rewrites(), weigh=lambda c, top=ceiling: top * c, retrievers=["bm25"])
    assert sorted(told.asked) == sorted(set(told.asked))


def test_the_curve_gives_up_queries_from_the_least_sure() -> None:
    curve = gain_curve("bm25", [0.9, 0.2, None], np.array([0.6, -0.3, 0.0]))
    by_threshold = {point.threshold: point for point in curve}
    assert by_threshold[0.0].coverage == pytest.approx(2 / 3)
    assert by_threshold[0.0].delta == pytest.approx(0.1)
    assert by_threshold[0.2].coverage == pytest.approx(2 / 3)
    assert by_threshold[0.25].delta == pytest.approx(0.2)
    assert by_threshold[0.25].delta_covered == pytest.approx(0.6)
    assert (by_threshold[1.0].coverage, by_threshold[1.0].delta, by_threshold[1.0].delta_covered) == (0, 0, 0)


def test_the_report_has_the_names_that_were_agreed_on() -> None:
    report = evaluate(TASK, rankings(), rewriter=Rewrites())
    record = json.loads(json.dumps(report.as_json()))
    first = record["rows"][0]
    assert set(first) == {
        "retriever", "rewrite", "ndcg@10", "r@100", "queries", "ci", "delta", "delta_ci",
        "over_nearest", "over_nearest_ci",
    }  # fmt: skip
    assert (first["retriever"], first["rewrite"], first[NDCG]) == ("bm25", "none", 0.3333)
    assert {one["retriever"] for one in record["rows"]} == {"bm25", "dense", "hybrid"}
    assert len(record["curve"]) == 3 * 21


def test_without_a_rewriter_there_are_baselines_and_no_curve() -> None:
    report = evaluate(TASK, rankings())
    assert {one.rewrite for one in report.rows} == {"none"}
    assert report.curve == ()


def test_the_oracle_knows_titles_and_with_typos_the_clean_query() -> None:
    titles = {"29": "Registered Nurses"}
    assert oracle_answers(TASK.queries, titles, typos=False) == {"q1": "Registered Nurses"}
    with_typos = oracle_answers(TASK.queries, titles, typos=True)
    assert (with_typos["q1"], with_typos["q3"]) == ("Registered Nurses", "pilot")


def test_the_curve_is_drawn_when_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "curve.png"
    draw(evaluate(TASK, rankings(), rewriter=Rewrites()).curve, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="needs a rewriter"):
        draw((), path)
