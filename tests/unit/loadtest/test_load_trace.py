from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

from loadtest.scenarios import Traffic
from loadtest.trace import Corpus, read_corpus, searches

TRAFFIC = Traffic(
    queries=50,
    zipf=1.0,
    clients=20,
    candidates=(3, 6),
    document_words=2,
    think_s=0.5,
    click_ratio=0.5,
    strict_ratio=0.5,
)
CORPUS = Corpus([f"query {n}" for n in range(100)], [f"a document of {n} words" for n in range(100)], "told")


def drawn(count: int, seed: int = 1, queries: int | None = None) -> list:
    return list(itertools.islice(searches(CORPUS, TRAFFIC, queries=queries, run="r", seed=seed), count))


def test_a_trace_is_seeded_and_its_ids_are_its_own() -> None:
    assert drawn(50) == drawn(50) != drawn(50, seed=2)
    assert len({search.query_id for search in drawn(50)}) == 50


def test_queries_come_by_popularity_and_no_more_than_asked_for() -> None:
    counts = Counter(search.query for search in drawn(5000))
    assert len(counts) == 50
    assert counts["query 0"] > counts["query 1"] > counts["query 10"]
    assert {search.query for search in drawn(100, queries=1)} == {"query 0"}


def test_a_query_brings_up_the_same_documents_each_time() -> None:
    by_query = {}
    for search in drawn(500):
        candidates = search.signals["candidates"]
        assert by_query.setdefault(search.query, candidates) == candidates
        assert 3 <= len(candidates) <= 6
        assert len({one["id"] for one in candidates}) == len(candidates)
        assert all(one["text"] == "a document" for one in candidates)
    assert len({str(candidates) for candidates in by_query.values()}) > 40


def test_both_calls_are_of_one_search() -> None:
    for search in drawn(20):
        shared = {"query", "query_id", "client_id"}
        assert {key: search.signals[key] for key in shared} == search.rewrite


def test_what_people_do_is_as_often_as_it_is_said() -> None:
    actions = Counter(search.actions for search in drawn(4000))
    assert set(actions) == {(), ("click",), ("click", "strict_click")}
    assert 0.45 < actions[()] / 4000 < 0.55
    assert 0.2 < actions["click", "strict_click"] / 4000 < 0.3


def test_without_data_it_is_made_up_and_said_to_be() -> None:
    corpus = read_corpus(None, None, seed=1)
    assert "made-up" in corpus.told
    assert len(corpus.queries) == len(set(corpus.queries)) > 10_000
    assert corpus == read_corpus(None, None, seed=1)


def test_a_file_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_text("cook\n\ncook\nnurse\n", encoding="utf-8")
    corpus = read_corpus(None, path, seed=1)
    assert sorted(corpus.queries) == ["cook", "nurse"]
    assert (
        corpus.told == "queries of queries.txt; documents of: made-up job titles, for queries and documents"
    )


def test_real_titles_where_they_are(shared_data: Path) -> None:
    corpus = read_corpus(shared_data, None, seed=1)
    assert len(corpus.queries) > 30_000
    assert "O*NET" in corpus.told
    assert all(len(document.split()) > 5 for document in corpus.documents[:100])
