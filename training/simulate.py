"""A log of simulated searches in the shape of User Behavior Insights, for want of a real one.

People want what `Need.relevant` says, see the first SHOWN documents of the staged stack with the rewrites of
the incumbent in it, and click as `training.users` has it. The log holds what a real one would: no label.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from training.datasets.examples import read_tsv
from training.datasets.jobs import read_jobs
from training.evaluate import Rewrite
from training.search import Plan, Stack
from training.users import User

SHOWN = 10
BETWEEN_SEARCHES_S = 60
SATISFIED_S, BACK_AFTER_S = 120, 8  # dwell times on either side of what a reader takes for a strict click


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody types, and which documents (ids) would satisfy them."""

    query: str
    relevant: frozenset[str]


def job_needs(folder: Path, count: int, seed: int) -> list[Need]:
    """Return titles of the training side of O*NET whose occupations `labels_train.tsv` has, drawn at random.

    Titles that validation holds out are not among them, and none of the dev splits' occupations is.

    Raises:
        DataError: a file is missing or malformed.
    """
    labels: dict[str, set[str]] = {}
    for row in read_tsv(folder / "labels_train.tsv"):
        labels.setdefault(row["onet_code"], set()).add(row["corpus-id"])
    needs = [
        Need(title, frozenset(labels[codes[0]]))
        for title, codes in read_jobs(folder).train
        if len(codes) == 1 and codes[0] in labels
    ]
    return Random(seed).sample(needs, min(count, len(needs)))


async def rankings(
    stack: Stack, needs: Sequence[Need], rewrites: Mapping[str, Sequence[Rewrite]]
) -> list[list[str]]:
    """Return what each query brings up: the first SHOWN doc ids, the incumbent's rewrites in all stages."""
    plans = [Plan(need.query, tuple(rewrites.get(need.query, ()))) for need in needs]
    return [ranking[:SHOWN] for ranking in await stack.search(plans)]


def events(
    needs: Sequence[Need],
    shown: Sequence[Sequence[str]],
    *,
    user: User,
    searches: int,
    start: datetime,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield the documents of the log, in the order of time: each need is searched for `searches` times.

    Args:
        needs: who wants what.
        shown: per need, the doc ids that its query brings up, best first.
        user: how they click.
        searches: by other people each.
        start: of the first search.
        seed: of all chance; the same seed gives the same log.
    """
    rng = Random(seed)
    order = [number for number in range(len(needs)) for _ in range(searches)]
    rng.shuffle(order)
    for count, number in enumerate(order):
        need, documents = needs[number], shown[number]
        search = _Search(f"{seed}-{count}", need.query, start + count * timedelta(seconds=BETWEEN_SEARCHES_S))
        yield search.query_document()
        for place, doc_id in enumerate(documents):
            yield search.event("impression", doc_id, place, 0)
        after_s = 1
        for click in user.clicks([doc_id in need.relevant for doc_id in documents], rng):
            yield search.event("click", documents[click.place], click.place, after_s)
            after_s += SATISFIED_S if click.satisfied else BACK_AFTER_S


def write_log(documents: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write one JSON document a line, gzipped where the name ends in .gz; return how many."""
    count = 0
    part = path.with_name(f"{path.name}.part")
    # Level 1 and no time stamp: a log is written once and read once, and equal logs are equal files.
    with part.open("wb") as raw:
        packed = gzip.GzipFile("", "wb", 1, raw, mtime=0) if path.suffix == ".gz" else raw
        with packed as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
                count += 1
    part.replace(path)
    return count


@dataclass(frozen=True, slots=True)
class _Search:
    query_id: str
    query: str
    at: datetime

    def query_document(self) -> dict[str, Any]:
        return {
            "application": "simulated",
            "query_id": self.query_id,
            "client_id": f"client-{zlib.crc32(self.query_id.encode()) % 10_000}",
            "user_query": self.query,
            "query_attributes": {},
            "timestamp": _iso(self.at),
        }

    def event(self, action: str, doc_id: str, place: int, after_s: int) -> dict[str, Any]:
        return {
            "action_name": action,
            "query_id": self.query_id,
            "user_query": self.query,
            "timestamp": _iso(self.at + timedelta(seconds=after_s)),
            "event_attributes": {"object": {"object_id": doc_id}, "position": {"ordinal": place}},
        }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
