from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training import retrieval
from training.datasets.beir import Document, read_task
from training.measures import NDCG, RECALL, judged, per_query
from training.retrieval import Bm25Retriever, Rankings, Run, cached_embeddings, tokens, top

DOCUMENTS = [
    Document("d1", "", "Nurse, intensive care"),
    Document("d2", "", "cook"),
    Document("d3", "Chef", "cook"),
    Document("d4", "", "cook"),
]


class Counting:
    """A retriever that finds what it is told, and remembers what it was asked."""

    def __init__(self, found: dict[str, list[str]]) -> None:
        self.found, self.asked = found, list[str]()

    def search(self, queries: Sequence[str], depth: int = 1000) -> list[Run]:
        self.asked += queries
        return [[(doc, 1.0) for doc in self.found.get(query, [])][:depth] for query in queries]


def test_tokens_are_runs_of_letters_and_digits_in_lower_case() -> None:
    assert tokens("R.N. / Café_au 3-in-1!") == ["r", "n", "café", "au", "3", "in", "1"]


def test_bm25_scores_as_lucene_does() -> None:
    [[(doc, score)]] = Bm25Retriever(DOCUMENTS).search(["NURSE"])
    idf = math.log(1 + (4 - 1 + 0.5) / (1 + 0.5))
    length = 0.9 * (1 - 0.4 + 0.4 * 3 / (7 / 4))
    assert doc == "d1"
    assert score == pytest.approx(idf / (1 + length), rel=1e-5)


def test_bm25_returns_only_matches_and_keeps_the_corpus_order_of_ties() -> None:
    found, nothing, empty = Bm25Retriever(DOCUMENTS).search(["cook", "pilot", "…"])
    assert [doc for doc, _ in found] == ["d2", "d4", "d3"]
    assert nothing == []
    assert empty == []
    assert [doc for doc, _ in Bm25Retriever(DOCUMENTS).search(["cook"], depth=1)[0]] == ["d2"]


def test_top_cuts_at_depth_with_ties_in_order() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1], np.float32)
    assert [doc for doc, _ in top(scores, "abcde", 3)] == ["b", "a", "c"]
    assert [doc for doc, _ in top(scores, "abcde", 9)] == ["b", "a", "c", "d", "e"]
    assert [doc for doc, _ in top(scores, "abcde", 9, above=0.1)] == ["b", "a", "c", "d"]


def test_each_text_is_searched_once_per_retriever() -> None:
    bm25, dense = Counting({"q": ["a", "b"]}), Counting({"q": ["b", "c"], "r": ["c"]})
    rankings = Rankings(bm25, dense)
    assert rankings.get("bm25", ["q", "q"]) == [[("a", 1.0), ("b", 1.0)]] * 2
    assert rankings.get("dense", ["r"]) == rankings.get("dense", ["r"]) == [[("c", 1.0)]]
    assert bm25.asked == ["q"]
    assert dense.asked == ["r"]


def test_embeddings_are_kept_by_content_and_equal_texts_are_embedded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def embed(texts: Sequence[str], *, progress: bool = False) -> retrieval.Floats:
        calls.append(list(texts))
        return np.array([[len(text), progress] for text in texts], np.float32)

    monkeypatch.setattr(retrieval, "embed", embed)
    first = cached_embeddings(["aa", "b", "aa"], tmp_path)
    assert first.tolist() == [[2, 1], [1, 1], [2, 1]]
    assert cached_embeddings(["aa", "b", "aa"], tmp_path).tolist() == first.tolist()
    assert cached_embeddings(["b", "aa"], tmp_path).tolist() == [[1, 1], [2, 1]]
    assert calls == [["aa", "b"], ["b", "aa"]]
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("jobs/dev_seen", (779, 0.1143, 0.2178)),
        ("jobs/dev_unseen", (750, 0.1445, 0.2431)),
        ("jobs/dev_canonical", (166, 0.1689, 0.3338)),
        ("products/dev", (62, 0.6535, 0.8398)),
    ],
)
def test_bm25_reproduces_the_baseline_of_the_data(
    shared_data: Path, split: str, expected: tuple[int, float, float]
) -> None:
    task = read_task((shared_data / split).parent, split.partition("/")[2])
    ids = judged(task.qrels, [query.query_id for query in task.queries])
    texts = {query.query_id: query.text for query in task.queries}
    runs = Bm25Retriever(task.documents).search([texts[query_id] for query_id in ids])
    rankings = {query_id: [doc for doc, _ in run] for query_id, run in zip(ids, runs, strict=True)}
    values = per_query(task.qrels, ids, rankings)
    measured = (len(ids), values[NDCG].mean(), values[RECALL].mean())
    assert measured == pytest.approx(expected, abs=5e-5)


def test_dense_retrieval_finds_by_meaning_with_vectors_of_length_one(tmp_path: Path) -> None:
    dense = retrieval.DenseRetriever(DOCUMENTS, tmp_path)
    [run] = dense.search(["registered nurse"], depth=2)
    assert run[0][0] == "d1"
    assert len(run) == 2
    assert np.linalg.norm(retrieval.embed(["a", "bc"]), axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert retrieval.embed([]).shape == (0, retrieval.EMBEDDING_DIM)
