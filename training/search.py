"""The staged reference stack: recall -> rawrank -> finerank, each taking the rewrites as the design says.

    recall     BM25 and the bi-encoder, fused by reciprocal rank; a rewrite's run is added to the original's
               at `recall_weight(confidence)`. The RECALLED best go on
    rawrank    B = s(q, d) of the bi-encoder, times φ; the FINE best go on
    finerank   B = s(q, d) of the cross-encoder, times what rawrank made of the document, times φ

φ comes from `app.contracts.fusion`, with `rank_weight` for the weight of a rewrite. What finerank does not
reach follows in rawrank's order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from app.contracts.fusion import (
    BREAK_EVEN,
    FINERANK_WEIGHT,
    MAX_FACTOR,
    RAWRANK_WEIGHT,
    factors,
    fuse_ranks,
    fuse_scores,
    rank_weight,
    recall_weight,
)
from app.relevance.base import Content, Floats, Relevance
from training.datasets.beir import Document
from training.evaluate import Rewrite
from training.retrieval import CACHE, DEPTH, Bm25Retriever, Run, save_vectors, top, vectors_file

RECALLED, FINE = 1000, 100
EMBED_BLOCK = 1024
STAGES = ("recall", "rawrank", "finerank")


class Searches(Protocol):
    """Lexical recall."""

    def search(self, queries: Sequence[str], depth: int = DEPTH) -> list[Run]:
        """Return one Run per query."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """How much rewrites may weigh at the ranking stages.

    Args:
        rawrank_weight, finerank_weight: b of the stage.
        max_factor: c.
        break_even: see `rank_weight`.
    """

    rawrank_weight: float = RAWRANK_WEIGHT
    finerank_weight: float = FINERANK_WEIGHT
    max_factor: float = MAX_FACTOR
    break_even: float = BREAK_EVEN

    def weight(self, confidence: float, stage: str) -> float:
        """The exponent of a rewrite at a ranking stage."""
        b = self.rawrank_weight if stage == "rawrank" else self.finerank_weight
        return rank_weight(confidence, b, break_even=self.break_even)


SHIPPED = Knobs()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one query asks of the stack.

    Args:
        query: the original.
        rewrites: best first; none leaves the ranking as the original's, bit for bit.
        stages: which of STAGES take the rewrites.
        knobs: how much they may weigh.
    """

    query: str
    rewrites: tuple[Rewrite, ...] = ()
    stages: frozenset[str] = frozenset(STAGES)
    knobs: Knobs = SHIPPED

    def issued(self) -> dict[str, float]:
        """The queries of recall and their weights, the original first; what weighs nothing is left out."""
        weights = {self.query: 1.0}
        if "recall" in self.stages:
            for rewrite in self.rewrites:
                if (weight := recall_weight(rewrite.confidence)) > 0:
                    weights.setdefault(rewrite.text, weight)
        return weights

    def weighed(self, stage: str) -> dict[str, float]:
        """The rewrites of a ranking stage and their exponents; what weighs nothing is left out."""
        if stage not in self.stages:
            return {}
        weights = {one.text: self.knobs.weight(one.confidence, stage) for one in self.rewrites}
        return {text: weight for text, weight in weights.items() if weight > 0}


class Stack:
    """The three stages over one corpus. Scores of a text and a document are computed once."""

    def __init__(
        self, documents: Sequence[Document], bm25: Searches, relevance: Relevance, embeddings: Floats
    ) -> None:
        self._ids = [document.doc_id for document in documents]
        self._place = {doc_id: place for place, doc_id in enumerate(self._ids)}
        self._contents = [Content(document.content) for document in documents]
        self._bm25, self._relevance, self._embeddings = bm25, relevance, embeddings
        self._vectors: dict[str, Floats] = {}
        self._runs: dict[str, tuple[Run, Run]] = {}
        self._pairs: dict[tuple[str, int], float] = {}

    @classmethod
    async def over(
        cls, documents: Sequence[Document], relevance: Relevance, cache_dir: Path = CACHE
    ) -> Stack:
        """Index `documents`; their embeddings are kept on disk under the model's digest."""
        embeddings = await corpus_embeddings(documents, relevance, cache_dir)
        return cls(documents, Bm25Retriever(documents), relevance, embeddings)

    async def search(self, plans: Sequence[Plan]) -> list[list[str]]:
        """Return the ranking of each plan: doc ids, best first, at most RECALLED."""
        await self._know(text for plan in plans for text in _texts(plan))
        return list(await asyncio.gather(*(self._search(plan) for plan in plans)))

    async def _search(self, plan: Plan) -> list[str]:
        candidates = self._recall(plan)
        raw = self._rawrank(plan, candidates)
        order = sorted(range(len(candidates)), key=lambda i: -raw[i])
        best = [candidates[i] for i in order[:FINE]]
        fine = await self._finerank(plan, best, [raw[i] for i in order[:FINE]])
        ranked = sorted(range(len(best)), key=lambda i: -fine[i])
        rest = [candidates[i] for i in order[FINE:]]
        return [self._ids[place] for place in [*(best[i] for i in ranked), *rest]]

    def _recall(self, plan: Plan) -> list[int]:
        texts, weights = zip(*plan.issued().items(), strict=True)
        fused = []
        for retriever in (0, 1):
            runs = [self._runs[text][retriever] for text in texts]
            missing = [run[-1][1] if len(run) >= DEPTH else 0.0 for run in runs]
            fused.append([doc_id for doc_id, _ in fuse_scores(runs, weights, missing)])
        hybrid = fuse_ranks(fused, (1.0, 1.0))[:RECALLED]
        return [self._place[doc_id] for doc_id, _ in hybrid]

    def _rawrank(self, plan: Plan, candidates: list[int]) -> list[float]:
        """For each candidate the original's score times φ."""
        vectors = self._embeddings[candidates]
        weights = plan.weighed("rawrank")
        base, *rows = (
            self._relevance.similarity(self._vectors[text], vectors) for text in (plan.query, *weights)
        )
        phi = _phi(rows, weights, plan, len(candidates))
        return [score * factor for score, factor in zip(base, phi, strict=True)]

    async def _finerank(self, plan: Plan, candidates: list[int], base: list[float]) -> list[float]:
        weights = plan.weighed("finerank")
        own, *rows = await asyncio.gather(*(self._score(text, candidates) for text in (plan.query, *weights)))
        phi = _phi(rows, weights, plan, len(candidates))
        return [score * before * factor for score, before, factor in zip(own, base, phi, strict=True)]

    async def _score(self, text: str, candidates: list[int]) -> list[float]:
        new = [place for place in candidates if (text, place) not in self._pairs]
        found = await self._relevance.score(text, [self._contents[place] for place in new])
        self._pairs.update(((text, place), score) for place, score in zip(new, found, strict=True))
        return [self._pairs[text, place] for place in candidates]

    async def _know(self, texts: Iterable[str]) -> None:
        """Embed the texts and search them, those that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._runs]
        if not new:
            return
        vectors = await self._relevance.embed_queries(new)
        for text, vector, lexical in zip(new, vectors, self._bm25.search(new), strict=True):
            self._vectors[text] = vector
            self._runs[text] = (lexical, top(self._embeddings @ vector, self._ids, DEPTH))


async def corpus_embeddings(
    documents: Sequence[Document], relevance: Relevance, cache_dir: Path = CACHE
) -> Floats:
    """Return the bi-encoder's embeddings of `documents`, [documents, dim], from disk where they are known."""
    file = vectors_file(relevance.digest, [document.content for document in documents], cache_dir)
    if file.exists():
        return np.asarray(np.load(file), np.float32)
    parts = []
    for start in range(0, len(documents), EMBED_BLOCK):
        contents = [Content(document.content) for document in documents[start : start + EMBED_BLOCK]]
        parts.append(await relevance.embed_documents(contents))
    embeddings = np.concatenate(parts)
    save_vectors(file, embeddings)
    return embeddings


def _texts(plan: Plan) -> list[str]:
    return [plan.query, *(rewrite.text for rewrite in plan.rewrites)]


def _phi(
    rows: Sequence[Sequence[float]], weights: Mapping[str, float], plan: Plan, count: int
) -> list[float]:
    return factors(rows, list(weights.values()), plan.knobs.max_factor) if rows else [1.0] * count
