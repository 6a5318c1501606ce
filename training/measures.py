"""nDCG@10, R@100, and bootstrap intervals.

The measures are trec_eval's, through ir_measures (MacAvaney, Macdonald and Ounis, ECIR 2022): the gain of
nDCG is the grade itself, a grade above 0 is relevant for recall. A query that found nothing counts 0; a query
without any relevant document has no measure and is left out of every average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from ir_measures import R, nDCG
from numpy.typing import NDArray

from training.datasets.beir import Qrels

NDCG, RECALL = "ndcg@10", "r@100"
MEASURES = {NDCG: nDCG @ 10, RECALL: R @ 100}
_DEEPEST = 100

RESAMPLES = 2000
LEVEL = 0.95
SEED = 20_260_101

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def judged(qrels: Qrels, query_ids: Sequence[str]) -> list[str]:
    """Return those of `query_ids`, in their order, that have at least one relevant document."""
    return [
        query_id for query_id in query_ids if any(grade > 0 for grade in qrels.get(query_id, {}).values())
    ]


def per_query(
    qrels: Qrels, query_ids: Sequence[str], rankings: Mapping[str, Sequence[str]]
) -> dict[str, Floats]:
    """Return, for each measure, one value in [0, 1] per query of `query_ids`, in their order.

    Args:
        qrels: grades per query and document.
        query_ids: the queries to measure, each with a relevant document (see `judged`).
        rankings: doc ids, best first; order is all that counts. A query that is absent found nothing.
    """
    run = {
        query_id: {doc_id: float(-rank) for rank, doc_id in enumerate(rankings.get(query_id, ())[:_DEEPEST])}
        for query_id in query_ids
    }
    wanted = {query_id: dict(qrels[query_id]) for query_id in query_ids}
    place = {query_id: number for number, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in MEASURES}
    names = {measure: name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(list(MEASURES.values()), wanted, run):
        values[names[metric.measure]][place[metric.query_id]] = metric.value
    return values


def bootstrap(values: Floats, *, resamples: int = RESAMPLES, seed: int = SEED) -> Estimate:
    """Return the mean of `values` with its percentile bootstrap interval over queries.

    Give it the differences of two systems on the same queries for a paired interval (Sakai, SIGIR 2006).

    Raises:
        ValueError: `values` is empty: an average over nothing is not 0.
    """
    if values.size == 0:
        raise ValueError("no value to average")
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(values.size, size=values.size)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high))
