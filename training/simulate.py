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

from app.contracts.prompt import Context
from training.datasets.ubi_context import query_attributes
from training.evaluate import Rewrite
from training.needs import Need
from training.search import Plan, Stack
from training.users import User

SHOWN = 10
BETWEEN_SEARCHES = timedelta(minutes=1)
SATISFIED_S, BACK_AFTER_S = 120, 8  # dwell times on either side of what a reader takes for a strict click


async def rankings(
    stack: Stack, needs: Sequence[Need], rewrites: Sequence[Sequence[Rewrite]]
) -> list[list[str]]:
    """Return what each need is shown: the first SHOWN doc ids for its query.

    Args:
        stack: what people search with.
        needs: who wants what.
        rewrites: of each need, the incumbent's for its query in its context; they go into all stages.
    """
    plans = [Plan(need.query, tuple(own)) for need, own in zip(needs, rewrites, strict=True)]
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
        search = _Search(f"{seed}-{count}", need.query, need.context, start + count * BETWEEN_SEARCHES)
        yield search.query_document()
        for place, doc_id in enumerate(documents):
            yield search.event("impression", doc_id, place, 0)
        after_s = 1
        if not need.relevant:  # what is wanted is not known, and no click is made up
            continue
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
    context: Context
    at: datetime

    def query_document(self) -> dict[str, Any]:
        return {
            "application": "simulated",
            "query_id": self.query_id,
            "client_id": f"client-{zlib.crc32(self.query_id.encode()) % 10_000}",
            "user_query": self.query,
            "query_attributes": query_attributes(self.context),
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
