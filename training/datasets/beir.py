"""BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv` (Thakur et al., NeurIPS 2021).

A folder may keep several splits in one `queries.jsonl`, told apart by a `split` field; queries without that
field belong to the split whose qrels name them. Grades are integers; a grade above 0 is relevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.datasets.examples import DataError, read_jsonl, read_tsv

Qrels = Mapping[str, Mapping[str, int]]
"""query_id -> doc_id -> grade."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus; `fields` keeps what BEIR does not name (brand, concept_id, …)."""

    doc_id: str
    title: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Title and text, as retrieval reads them."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `fields` keeps what BEIR does not name (split, onet_code, …)."""

    query_id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """A corpus, the queries of one split, and their qrels (which may lack a query, or name none relevant)."""

    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels

    def with_queries(self, queries: Sequence[Query]) -> Task:
        """Return the task with other texts for its queries; the qrels go by query_id."""
        return replace(self, queries=tuple(queries))


def read_task(folder: Path, split: str, *, qrels: Path | None = None) -> Task:
    """Read one split of a BEIR folder; `qrels` replaces `folder/qrels/SPLIT.tsv`.

    Raises:
        DataError: a file is missing or malformed, the split has no query, or the qrels name an unknown
            query.
    """
    qrels_path = qrels or folder / "qrels" / f"{split}.tsv"
    judged = read_qrels(qrels_path)
    everything = read_queries(folder / "queries.jsonl")
    if unknown := judged.keys() - {query.query_id for query in everything}:
        raise DataError(f"{qrels_path}: judges a query that queries.jsonl lacks: {min(unknown)!r}")
    queries = tuple(
        query
        for query in everything
        if (query.fields["split"] == split if "split" in query.fields else query.query_id in judged)
    )
    if not queries:
        raise DataError(f"{folder / 'queries.jsonl'}: no query of split {split!r}")
    return Task(read_corpus(folder / "corpus.jsonl"), queries, judged)


def read_corpus(path: Path) -> tuple[Document, ...]:
    """Read `corpus.jsonl`; `title` may be absent. Raises DataError."""
    documents = []
    for number, row in enumerate(read_jsonl(path), start=1):
        doc_id, title, text = _texts({"title": "", **row}, ("_id", "title", "text"), f"{path}:{number}")
        documents.append(Document(doc_id, title, text, _rest(row, {"_id", "title", "text"})))
    _refuse_duplicates(path, [document.doc_id for document in documents])
    return tuple(documents)


def read_queries(path: Path) -> tuple[Query, ...]:
    """Read `queries.jsonl`, every split. Raises DataError."""
    queries = []
    for number, row in enumerate(read_jsonl(path), start=1):
        query_id, text = _texts(row, ("_id", "text"), f"{path}:{number}")
        queries.append(Query(query_id, text, _rest(row, {"_id", "text"})))
    _refuse_duplicates(path, [query.query_id for query in queries])
    return tuple(queries)


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read a qrels file with the header `query-id corpus-id score`, tab-separated. Raises DataError."""
    qrels: dict[str, dict[str, int]] = {}
    for number, row in enumerate(read_tsv(path), start=2):
        try:
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        except KeyError as missing:
            raise DataError(f"{path}:1: the header lacks {missing}") from None
        except ValueError:
            raise DataError(f"{path}:{number}: the score is not an integer: {row['score']!r}") from None
    return qrels


def _texts(row: Mapping[str, Any], keys: Sequence[str], where: str) -> list[str]:
    for key in keys:
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: field {key!r} must be a string, not {row.get(key)!r}")
    return [row[key] for key in keys]


def _rest(row: Mapping[str, Any], named: set[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in named}


def _refuse_duplicates(path: Path, ids: Sequence[str]) -> None:
    line_of: dict[str, int] = {}
    for number, identifier in enumerate(ids, start=1):
        if (first := line_of.setdefault(identifier, number)) != number:
            raise DataError(f"{path}:{number}: the id {identifier!r} is that of line {first}")
