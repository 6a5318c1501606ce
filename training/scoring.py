"""How relevant rewrites are to the documents of their instances: what the reward is made of.

A scorer is one head of a relevance model, or what stands in for one; rewrites of all instances are scored in
batches, each text and each document once.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from app.relevance.base import Content, Floats, Relevance
from training.datasets.instances import Instance
from training.retrieval import tokens
from training.reward import Evidence, weighted_mean

BLOCK = 1024
T = TypeVar("T")


class Scorer(Protocol):
    """Relevance of texts to documents."""

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """Return s(text, document), [texts, documents], each in [0, 1]."""

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """Hear beforehand of all that will be asked, to do it in batches."""


class RawrankScorer:
    """The bi-encoder of the deployed model: one embedding a text, a dot product a pair."""

    def __init__(self, relevance: Relevance) -> None:
        self._relevance = relevance
        self._texts: dict[str, Floats] = {}
        self._documents: dict[Content, Floats] = {}

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """Embed what is new."""
        new_texts = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for block in _blocks(new_texts):
            self._texts.update(zip(block, await self._relevance.embed_queries(block), strict=True))
        new = [document for document in dict.fromkeys(documents) if document not in self._documents]
        for contents in _blocks(new):
            self._documents.update(
                zip(contents, await self._relevance.embed_documents(contents), strict=True)
            )

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        await self.know(texts, documents)
        matrix = np.stack([self._documents[document] for document in documents])
        return np.array([self._relevance.similarity(self._texts[text], matrix) for text in texts], np.float32)


class FinerankScorer:
    """The cross-encoder of the deployed model: every pair is read."""

    def __init__(self, relevance: Relevance) -> None:
        self._relevance = relevance

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """Nothing can be done beforehand: the model batches whatever is asked at a time."""

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        rows = await asyncio.gather(*(self._relevance.score(text, documents) for text in texts))
        return np.array(rows, np.float32)


class OverlapScorer:
    """An offline proxy that is no deployed model: the idf-weighted share of a document's words in the text.

    What reward design has when the ranker is out of reach (BM25's weights without its saturation).
    """

    def __init__(self, corpus: Sequence[str]) -> None:
        frequency = Counter(word for text in corpus for word in set(tokens(text)))
        self._idf = {word: math.log1p(len(corpus) / count) for word, count in frequency.items()}
        self._unknown = math.log1p(len(corpus))

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """Words need no preparation."""

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        words = [set(tokens(document.text)) for document in documents]
        return np.array([[self._share(set(tokens(text)), of) for of in words] for text in texts], np.float32)

    def _share(self, found: set[str], wanted: set[str]) -> float:
        whole = sum(self._weight(word) for word in wanted)
        return sum(self._weight(word) for word in wanted & found) / whole if whole else 0.0

    def _weight(self, word: str) -> float:
        return self._idf.get(word, self._unknown)


async def evidence(
    scorer: Scorer, instances: Sequence[Instance], rewrites: Sequence[Sequence[str]]
) -> list[list[Evidence]]:
    """Return the evidence of each rewrite of each instance.

    Args:
        scorer: says how relevant.
        instances: what people did.
        rewrites: per instance, texts; any number.

    Raises:
        RelevanceError: the model cannot answer.
    """
    await scorer.know(
        (text for texts in rewrites for text in texts),
        (document for instance in instances for document in instance.documents),
    )
    return list(
        await asyncio.gather(
            *(_evidence(scorer, instance, texts) for instance, texts in zip(instances, rewrites, strict=True))
        )
    )


async def _evidence(scorer: Scorer, instance: Instance, texts: Sequence[str]) -> list[Evidence]:
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    matrix = await scorer.scores(distinct, instance.documents)
    clicked, skipped = len(instance.clicked), len(instance.skipped)
    found = {}
    for text, row in zip(distinct, matrix.astype(float).tolist(), strict=True):
        s_pos = weighted_mean(row[:clicked], [seen.rate for seen in instance.clicked])
        if s_pos is None:
            raise ValueError(f"{instance.query!r} has no clicked document")
        skips = row[clicked : clicked + skipped]
        others = row[clicked + skipped :]
        found[text] = Evidence(
            s_pos,
            weighted_mean(skips, [seen.rate for seen in instance.skipped]),
            weighted_mean(others, [1.0] * len(others)),
        )
    return [found[text] for text in texts]


def _blocks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + BLOCK] for start in range(0, len(items), BLOCK))
