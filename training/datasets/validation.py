"""A retrieval task for tuning, made without any dev label.

`labels_train.tsv` maps 195 occupations, none of which is in a dev split, to the ESCO surface forms people
who use their titles look for. With titles held out of SFT as queries it is the same kind of task as jobs/dev,
and thresholds and weights may be tuned on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from training.datasets.beir import Query, Task, read_corpus
from training.datasets.examples import read_tsv


def validation_task(folder: Path, titles: Iterable[tuple[str, str]]) -> Task:
    """Build the task of (title, onet_code) pairs over the corpus of the jobs folder.

    Titles of occupations that `labels_train.tsv` lacks are left out, so that every query has relevant
    documents. Query ids count the given pairs ("val-0", "val-1", …); `fields` holds the onet_code.

    Raises:
        DataError: a file is missing or malformed.
    """
    relevant: dict[str, dict[str, int]] = {}
    for row in read_tsv(folder / "labels_train.tsv"):
        relevant.setdefault(row["onet_code"], {})[row["corpus-id"]] = 1
    queries = tuple(
        Query(f"val-{number}", title, {"onet_code": code})
        for number, (title, code) in enumerate(titles)
        if code in relevant
    )
    qrels = {query.query_id: relevant[query.fields["onet_code"]] for query in queries}
    return Task(read_corpus(folder / "corpus.jsonl"), queries, qrels)
