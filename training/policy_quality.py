"""What the first choices of a policy are worth by human labels, on validation titles: no reward is asked.

Each first choice is searched with in place of its query, the hardest use of a rewrite, by two retrievers over
the whole corpus: `deployed` is the bi-encoder that rewards read, `independent` a sentence encoder that none
does. A policy that pleases the first alone has learnt its reward instead of its task.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from app.relevance.base import Floats, Relevance
from training.anchors import first_choices
from training.config import SampleConfig
from training.datasets.beir import Document, Task
from training.datasets.instances import Search
from training.datasets.judgements import click_side
from training.measures import NDCG, per_query
from training.measures import Floats as Measured
from training.retrieval import DenseRetriever, Run, top
from training.search import corpus_embeddings
from training.tune import validation_sides

DEPTH = 10
CLICKED_APART = "clicked independent"
"""The side with clicks, by the encoder that no reward reads."""


class Searches(Protocol):
    """Retrieval over the corpus."""

    def search(self, queries: Sequence[str], depth: int) -> list[Run]:
        """Return one Run per query."""


class BiEncoder:
    """Retrieval by the bi-encoder of a relevance model.

    Args:
        documents: of the corpus.
        relevance: embeds queries.
        embeddings: of the documents, [documents, dim].
    """

    def __init__(self, documents: Sequence[Document], relevance: Relevance, embeddings: Floats) -> None:
        self._ids = [document.doc_id for document in documents]
        self._relevance, self._embeddings = relevance, embeddings

    def search(self, queries: Sequence[str], depth: int) -> list[Run]:
        """Return one Run per query, always min(depth, corpus) long."""
        vectors = asyncio.run(self._relevance.embed_queries(queries)) if queries else ()
        return [top(self._embeddings @ vector, self._ids, depth) for vector in vectors]


def policy_sides(jobs_dir: Path) -> dict[str, Task]:
    """Titles that SFT never saw, by what the click log says of their occupations.

    `clicked` have clicks there, under other titles; `quiet` have none; `hidden` are unknown to SFT as well.
    `canonical` are the O*NET titles of all of them, most of which are best left as they are.

    Raises:
        DataError: a file is missing or malformed.
    """
    sides = validation_sides(jobs_dir, sys.maxsize)
    seen = sides["seen"]
    clicked = [query for query in seen.queries if click_side(query.fields["onet_code"]) == "train"]
    quiet = [query for query in seen.queries if query not in clicked]
    return {
        "clicked": seen.with_queries(clicked),
        "quiet": seen.with_queries(quiet),
        "hidden": sides["unseen"],
        "canonical": sides["canonical"],
    }


class PolicyJudge:
    """Measures policies. Texts are searched once in the life of this object.

    Args:
        tasks: by side, all over one corpus.
        retrievers: by name.
    """

    def __init__(self, tasks: Mapping[str, Task], retrievers: Mapping[str, Searches]) -> None:
        self._tasks, self._retrievers = tasks, retrievers
        self._known: dict[str, dict[str, Run]] = {name: {} for name in retrievers}

    @classmethod
    def over(cls, jobs_dir: Path, relevance: Relevance) -> PolicyJudge:
        """A judge of the sides of `policy_sides`, with both retrievers."""
        tasks = policy_sides(jobs_dir)
        documents = tasks["clicked"].documents
        embeddings = asyncio.run(corpus_embeddings(documents, relevance))
        deployed = BiEncoder(documents, relevance, embeddings)
        return cls(tasks, {"deployed": deployed, "independent": DenseRetriever(documents)})

    @classmethod
    def apart(cls, jobs_dir: Path) -> PolicyJudge:
        """A judge of `CLICKED_APART` alone, titles that no loop learns from. Raises as `policy_sides`."""
        side, retriever = CLICKED_APART.split()
        task = policy_sides(jobs_dir)[side]
        return cls({side: task}, {retriever: DenseRetriever(task.documents)})

    def of_policy(self, policy: Path, config: SampleConfig, *, threads: int) -> dict[str, float]:
        """Return the means of `per_query` over queries."""
        return _means(self.per_query(policy, config, threads=threads))

    def of_rewrites(self, written: Mapping[str, str]) -> dict[str, float]:
        """Return mean nDCG@10 where each query is replaced by what is written for it."""
        return _means(self._values(written))

    def per_query(self, policy: Path, config: SampleConfig, *, threads: int) -> dict[str, Measured]:
        """Return nDCG@10 of the first choices by "side retriever", a value per query of the side, in order.

        An empty one is searched as its query.
        """
        asked = [Search(query.text) for task in self._tasks.values() for query in task.queries]
        written = first_choices(policy, asked, config, threads=threads)
        return self._values(
            {search.query: answer.text.strip() for search, answer in zip(asked, written, strict=True)}
        )

    def _values(self, written: Mapping[str, str]) -> dict[str, Measured]:
        found = {}
        for side, task in self._tasks.items():
            ids = [query.query_id for query in task.queries]
            texts = [written.get(query.text) or query.text for query in task.queries]
            for name in self._retrievers:
                rankings = {
                    query_id: [doc_id for doc_id, _ in run]
                    for query_id, run in zip(ids, self._search(name, texts), strict=True)
                }
                found[f"{side} {name}"] = per_query(task.qrels, ids, rankings)[NDCG]
        return found

    def _search(self, name: str, texts: Sequence[str]) -> list[Run]:
        known = self._known[name]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, self._retrievers[name].search(new, DEPTH), strict=True))
        return [known[text] for text in texts]


def _means(values: Mapping[str, Measured]) -> dict[str, float]:
    return {name: round(float(value.mean()), 4) for name, value in values.items()}
