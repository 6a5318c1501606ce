"""What a rewriter does to retrieval: every retriever crossed with every way to use a rewrite.

Each way ("arm") is a plan per query: texts to search, each with a weight, whose scores are summed at these
weights (`app.contracts.fusion.fuse_scores`). The first text carries weight 1; the others are the parallel
rewrites. The hybrid is reciprocal rank fusion (k = 60) of BM25 and dense, each fused already.

    none               the original alone                        the baseline of every delta
    nearest            the nearest training title, alone         jobs only: the sceptic's baseline
    nearest_parallel   original + nearest at weight 1            jobs only
    alone              the best rewrite; the original where the rewriter abstains
    parallel           original + rewrites at `weigh(confidence)`
    oracle             the right rewrite; the original where it is unknown
    oracle_parallel    original + oracle at weight 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.contracts.fusion import found_shares, fuse_ranks, fuse_scores
from training.datasets.beir import Query, Task
from training.measures import NDCG, RECALL, bootstrap, judged, per_query
from training.retrieval import DEPTH, Rankings

RETRIEVERS = ("bm25", "dense", "hybrid")

Plan = Sequence[tuple[str, float]]
"""Texts to search and the weights to fuse their runs with; the first one's is 1."""

Weigh = Callable[[float], float]
"""From a rewrite's confidence in [0, 1] to the weight of its ranking; 0 is neutral."""

THRESHOLDS = tuple(step / 20 for step in range(21))
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite and the calibrated probability that it is right."""

    text: str
    confidence: float


class Rewriter(Protocol):
    """What is judged: the whole request path, with its guard and its abstention."""

    def rewrite(self, queries: Sequence[str]) -> list[list[Rewrite]]:
        """Return the rewrites of each query, best first; an empty list is an abstention."""


@dataclass(frozen=True, slots=True)
class Row:
    """One retriever with one arm. `ci` is of nDCG@10.

    `delta` is its paired mean difference to `none`, `over_nearest` that to `nearest` where it was measured.
    """

    retriever: str
    rewrite: str
    ndcg: float
    recall: float
    queries: int
    ci: tuple[float, float]
    delta: float
    delta_ci: tuple[float, float]
    over_nearest: float | None = None
    over_nearest_ci: tuple[float, float] | None = None

    def as_json(self) -> dict[str, object]:
        """Return the row under the names of the report (`ndcg@10`, `r@100`), rounded to four digits."""
        record = {NDCG: self.ndcg, RECALL: self.recall, **asdict(self)}
        del record["ndcg"], record["recall"]
        return {key: _rounded(value) for key, value in record.items()}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Gain against coverage when rewrites below `threshold` are not used.

    `coverage` is the share of all queries still rewritten; `delta` the mean change of nDCG@10 over all
    queries, `delta_covered` over the rewritten ones (0 when there is none).
    """

    retriever: str
    threshold: float
    coverage: float
    delta: float
    delta_covered: float


@dataclass(frozen=True)
class Report:
    """Everything one evaluation found."""

    rows: tuple[Row, ...]
    curve: tuple[CurvePoint, ...] = ()
    facts: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the report as the JSON object that `corewrite evaluate --json` writes."""
        curve = [{key: _rounded(value) for key, value in asdict(point).items()} for point in self.curve]
        return {**self.facts, "rows": [row.as_json() for row in self.rows], "curve": curve}


def evaluate(
    task: Task,
    rankings: Rankings,
    *,
    rewriter: Rewriter | None = None,
    threshold: float = 0.0,
    weigh: Weigh = lambda confidence: confidence,
    oracle: Mapping[str, str] | None = None,
    nearest: Mapping[str, str] | None = None,
    retrievers: Sequence[str] = RETRIEVERS,
) -> Report:
    """Measure every arm there is something for.

    Args:
        task: queries and qrels. Queries without a relevant document are left out and counted.
        rankings: retrieval over the corpus of `task`; may be shared between calls to search only once.
        rewriter: adds `alone`, `parallel` and the curve; it shows rewrites of any confidence.
        threshold: confidence below which a rewrite is not used, but in the curve.
        weigh: the weight of a rewrite's ranking where the original's is 1.
        oracle: query_id -> right rewrite; a query it lacks keeps its original.
        nearest: query_id -> rewrite of the nearest-title baseline.
        retrievers: a subset of RETRIEVERS.
    """
    ids = judged(task.qrels, [query.query_id for query in task.queries])
    kept = set(ids)
    queries = [query for query in task.queries if query.query_id in kept]
    facts = {"queries": len(task.queries), "without_relevant": len(task.queries) - len(queries)}
    arms: dict[str, list[Plan]] = {"none": [[(query.text, 1.0)] for query in queries]}
    if nearest is not None:
        arms |= _fixed("nearest", queries, nearest)
    shown: list[list[Rewrite]] = []
    if rewriter is not None:
        shown = rewriter.rewrite([query.text for query in queries])
        used = [[rewrite for rewrite in found if rewrite.confidence >= threshold] for found in shown]
        pairs = list(zip(queries, used, strict=True))
        facts["abstained"] = sum(not found for found in used)
        arms["alone"] = [[(found[0].text if found else query.text, 1.0)] for query, found in pairs]
        arms["parallel"] = [parallel_plan(query.text, found, weigh) for query, found in pairs]
    if oracle is not None:
        facts["oracle_unknown"] = sum(query.query_id not in oracle for query in queries)
        arms |= _fixed("oracle", queries, oracle)

    rows: list[Row] = []
    curve: list[CurvePoint] = []
    for retriever in retrievers:
        values = {
            arm: per_query(task.qrels, ids, dict(zip(ids, ranked(rankings, retriever, plans), strict=True)))
            for arm, plans in arms.items()
        }
        rows += [
            row(retriever, arm, values[arm], values["none"], nearest=values.get("nearest")) for arm in arms
        ]
        if rewriter is not None:
            anyway = [
                parallel_plan(query.text, found, weigh) for query, found in zip(queries, shown, strict=True)
            ]
            found_anyway = dict(zip(ids, ranked(rankings, retriever, anyway), strict=True))
            deltas = per_query(task.qrels, ids, found_anyway)[NDCG] - values["none"][NDCG]
            confidences = [found[0].confidence if found else None for found in shown]
            curve += gain_curve(retriever, confidences, deltas)
    return Report(tuple(rows), tuple(curve), facts)


def oracle_answers(queries: Sequence[Query], titles: Mapping[str, str], *, typos: bool) -> dict[str, str]:
    """Return query_id -> the right rewrite, where it is known.

    Args:
        queries: as they are in the data, before any typo.
        titles: onet_code -> canonical title; empty for data that is not about jobs.
        typos: whether the evaluation misspells the queries; then the clean query is right where no title is.
    """
    answers = {query.query_id: query.text for query in queries} if typos else {}
    for query in queries:
        if title := titles.get(query.fields.get("onet_code", "")):
            answers[query.query_id] = title
    return answers


def parallel_plan(original: str, rewrites: Sequence[Rewrite], weigh: Weigh) -> Plan:
    """Return the plan of the parallel arm: the original at weight 1, then each rewrite at its own."""
    return [(original, 1.0), *((rewrite.text, weigh(rewrite.confidence)) for rewrite in rewrites)]


def ranked(rankings: Rankings, retriever: str, plans: Sequence[Plan]) -> list[list[str]]:
    """Search and fuse each plan: doc ids, best first. Texts of weight 0 are not searched.

    Args:
        rankings: what searches and remembers.
        retriever: one of RETRIEVERS; the hybrid fuses the ranks of both others, each fused already.
        plans: one per query.
    """
    if retriever == "hybrid":
        both = zip(_fused(rankings, "bm25", plans), _fused(rankings, "dense", plans), strict=True)
        hybrid = [
            fuse_ranks((bm25, dense), (1.0, 1.0), shares=(bm25_shares, dense_shares))
            for (bm25, bm25_shares), (dense, dense_shares) in both
        ]
        return [[doc_id for doc_id, _ in fused[:DEPTH]] for fused in hybrid]
    return [ranking for ranking, _ in _fused(rankings, retriever, plans)]


def _fused(
    rankings: Rankings, retriever: str, plans: Sequence[Plan]
) -> list[tuple[list[str], dict[str, float]]]:
    """Return each plan's fused ranking by one retriever, and the shares of what rewrites alone found."""
    used = [[(text, weight) for text, weight in plan if weight > 0] for plan in plans]
    texts = list(dict.fromkeys(text for plan in used for text, _ in plan))
    found = dict(zip(texts, rankings.get(retriever, texts), strict=True))
    fused = []
    for plan in used:
        runs = [found[text] for text, _ in plan]
        # A run cut at DEPTH scores the rest at most as its last document; a shorter one is whole.
        missing = [run[-1][1] if len(run) >= DEPTH else 0.0 for run in runs]
        weights = [weight for _, weight in plan]
        ranking = [doc_id for doc_id, _ in fuse_scores(runs, weights, missing)]
        fused.append((ranking, found_shares(runs, weights)))
    return fused


def gain_curve(
    retriever: str, confidences: Sequence[float | None], deltas: NDArray[np.float64]
) -> list[CurvePoint]:
    """Return the gain at each of THRESHOLDS.

    Args:
        retriever: its name, for the points.
        confidences: of the best rewrite of each query; None where the rewriter abstained.
        deltas: change of nDCG@10 by the parallel arm, in the same order.
    """
    points = []
    for threshold in THRESHOLDS:
        covered = np.array([value is not None and value >= threshold for value in confidences], dtype=bool)
        points.append(
            CurvePoint(
                retriever=retriever,
                threshold=threshold,
                coverage=float(covered.mean()),
                delta=float(np.where(covered, deltas, 0.0).mean()),
                delta_covered=float(deltas[covered].mean()) if covered.any() else 0.0,
            )
        )
    return points


def _fixed(name: str, queries: Sequence[Query], answers: Mapping[str, str]) -> dict[str, list[Plan]]:
    texts = [answers.get(query.query_id, query.text) for query in queries]
    return {
        name: [[(text, 1.0)] for text in texts],
        f"{name}_parallel": [
            [(query.text, 1.0), (text, 1.0)] for query, text in zip(queries, texts, strict=True)
        ],
    }


def row(
    retriever: str,
    arm: str,
    values: Mapping[str, NDArray[np.float64]],
    none: Mapping[str, NDArray[np.float64]],
    *,
    nearest: Mapping[str, NDArray[np.float64]] | None = None,
) -> Row:
    """Return the row of an arm, from the values of its queries and of those it is compared with."""
    ndcg = bootstrap(values[NDCG])
    delta = bootstrap(values[NDCG] - none[NDCG])
    over = None if nearest is None else bootstrap(values[NDCG] - nearest[NDCG])
    return Row(
        retriever=retriever,
        rewrite=arm,
        ndcg=ndcg.mean,
        recall=float(values[RECALL].mean()),
        queries=len(values[NDCG]),
        ci=(ndcg.low, ndcg.high),
        delta=delta.mean,
        delta_ci=(delta.low, delta.high),
        over_nearest=None if over is None else over.mean,
        over_nearest_ci=None if over is None else (over.low, over.high),
    )


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    return value
