from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.datasets.beir import Document, Query, read_corpus, read_qrels, read_queries, read_task
from training.datasets.examples import DataError

CORPUS = '{"_id": "d1", "title": "Nurse", "text": "in a ward", "kind": "x"}\n{"_id": "d2", "text": "cook"}\n'
QUERIES = (
    '{"_id": "q1", "text": "rn", "split": "dev"}\n'
    '{"_id": "q2", "text": "chef", "split": "test"}\n'
    '{"_id": "q3", "text": "nothing", "split": "dev"}\n'
)
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text(CORPUS, encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(QUERIES, encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "dev.tsv").write_text(QRELS, encoding="utf-8")
    return tmp_path


def test_a_task_has_the_queries_of_its_split_even_unjudged_ones(folder: Path) -> None:
    task = read_task(folder, "dev")
    assert [query.query_id for query in task.queries] == ["q1", "q3"]
    assert task.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert task.documents == (Document("d1", "Nurse", "in a ward", {"kind": "x"}), Document("d2", "", "cook"))
    assert [document.content for document in task.documents] == ["Nurse in a ward", "cook"]


def test_queries_without_a_split_belong_where_they_are_judged(folder: Path) -> None:
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "rn"}\n{"_id": "q2", "text": "x"}\n', encoding="utf-8"
    )
    assert read_task(folder, "dev").queries == (Query("q1", "rn"),)


def test_other_qrels_may_be_given(folder: Path) -> None:
    other = folder / "other.tsv"
    other.write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n", encoding="utf-8")
    assert read_task(folder, "dev", qrels=other).qrels == {"q1": {"d2": 1}}


def test_with_queries_keeps_corpus_and_qrels(folder: Path) -> None:
    task = read_task(folder, "dev")
    changed = task.with_queries([Query("q1", "r n")])
    assert changed.queries == (Query("q1", "r n"),)
    assert changed.qrels is task.qrels


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"_id": "d1", "text": "a"}\n{broken\n', "corpus.jsonl:2: "),
        ('{"_id": "d1"}\n', "corpus.jsonl:1: field 'text' must be a string, not None"),
        ('{"_id": 7, "text": "a"}\n', "corpus.jsonl:1: field '_id' must be a string, not 7"),
        (
            '{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n',
            "corpus.jsonl:2: the id 'd1' is that of",
        ),
        ("[]\n", "corpus.jsonl:1: "),
    ],
)
def test_a_bad_corpus_is_refused_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_corpus(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "dev.tsv:2: the score is not an integer: 'high'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", "dev.tsv:2: "),
        ("query\tcorpus-id\tscore\nq1\td1\t1\n", "dev.tsv:1: the header lacks 'query-id'"),
    ],
)
def test_bad_qrels_are_refused_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_qrels(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"queries\.jsonl: no such file"):
        read_queries(tmp_path / "queries.jsonl")


def test_qrels_of_an_unknown_query_are_refused(folder: Path) -> None:
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nzz\td1\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match="'zz'"):
        read_task(folder, "dev")


def test_a_split_without_queries_is_refused(folder: Path) -> None:
    (folder / "qrels" / "none.tsv").write_text("query-id\tcorpus-id\tscore\n", encoding="utf-8")
    with pytest.raises(DataError, match="no query of split 'none'"):
        read_task(folder, "none")
