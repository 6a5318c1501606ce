"""What both checkpoints do to the staged stack, by labels: nDCG@10 of each query, and its rankings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets.beir import Task
from training.evaluate import Rewrite
from training.evaluate_stages import plans_of
from training.gate.verdict import Measurement
from training.measures import NDCG, judged, per_query
from training.search import SHIPPED, Stack
from training.served import ServedRewriter, served_relevance

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """One query with both checkpoints' rewrites in the stack.

    Args:
        query: as it was typed.
        rewrites: first one of the candidate and of the incumbent; empty where it abstains.
        ndcg: nDCG@10 with each.
        rankings: the first SHOWN documents with each, as (text, grade).
    """

    query: str
    rewrites: tuple[str, str]
    ndcg: tuple[float, float]
    rankings: tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]

    @property
    def gain(self) -> float:
        """Of the candidate over the incumbent."""
        return self.ndcg[0] - self.ndcg[1]


def search_task(checkpoints: tuple[Path, Path], task: Task, relevance: Path) -> list[Shown]:
    """Search for all queries of a task that have a relevant document, as candidate and incumbent serve.

    Raises:
        CheckpointError: a checkpoint or the relevance model cannot be used.
    """
    queries = [query.text for query in task.queries]
    said = [ServedRewriter(checkpoint).rewrite(queries) for checkpoint in checkpoints]
    ids = judged(task.qrels, [query.query_id for query in task.queries])
    text = {query.query_id: query.text for query in task.queries}
    rewrites = [
        {query.query_id: list(own) for query, own in zip(task.queries, of, strict=True)} for of in said
    ]

    async def work() -> list[list[list[str]]]:
        model = served_relevance(relevance)
        stack = await Stack.over(task.documents, model)
        found = [await stack.search(plans_of("parallel", ids, text, own, SHIPPED)) for own in rewrites]
        await model.close()
        return found

    rankings = [dict(zip(ids, found, strict=True)) for found in asyncio.run(work())]
    values = [per_query(task.qrels, ids, ranking)[NDCG] for ranking in rankings]
    content = {document.doc_id: document.content for document in task.documents}
    return [
        Shown(
            text[query_id],
            (_first(rewrites[0].get(query_id)), _first(rewrites[1].get(query_id))),
            (float(values[0][place]), float(values[1][place])),
            (
                _graded(rankings[0][query_id], task.qrels[query_id], content),
                _graded(rankings[1][query_id], task.qrels[query_id], content),
            ),
        )
        for place, query_id in enumerate(ids)
    ]


def ndcg_of(shown: Sequence[Shown]) -> Measurement:
    """Return nDCG@10 of both."""
    candidate, incumbent = (np.array([one.ndcg[side] for one in shown]) for side in (0, 1))
    return Measurement(candidate, incumbent)


def _first(rewrites: Sequence[Rewrite] | None) -> str:
    return rewrites[0].text if rewrites else ""


def _graded(
    ranking: Sequence[str], grades: Mapping[str, int], content: Mapping[str, str]
) -> tuple[tuple[str, int], ...]:
    return tuple((content[doc_id], grades.get(doc_id, 0)) for doc_id in ranking[:SHOWN])
