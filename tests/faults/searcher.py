"""A search backend in a thread: it asks, reports clicks, and remembers everything, to be judged at the end.

It does as one with a load balancer: a request that a replica does not answer with 200 in time is sent once
more, to the other one, if there is one. A search has failed where that fails too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from waiting import wait_until

from app.contracts.reasons import FALLBACKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUERIES = (
    "rn icu nights", "truck hopper", "registerd nurse", "code monkey", "er doctor", "bluetoth headphones",
    "lorry driver", "night shift nurse", "forklift operater", "it guy", "wedding photographer", "line cook",
)  # fmt: skip
PATIENCE_S = 10.0
CLIENTS = 4
PAUSE_S = 0.02
REPORT_S = 0.05
MOST_EVENTS = 200
REWRITE, SIGNALS = "/v1/rewrite", "/v1/signals"
Texts = tuple[str, ...]
Expected = Mapping[tuple[str, str, str], Texts]


@dataclass(frozen=True, slots=True)
class Search:
    """One search as its backend saw it; `answer` is what came with 200, None: nothing did, from anybody."""

    start_s: float
    end_s: float
    path: str
    query: str
    tries: int
    answer: Mapping[str, Any] | None
    failures: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return self.answer is None or self.answer["original"] != self.query

    @property
    def degraded(self) -> bool:
        return self.answer is not None and self.answer["reason"] in FALLBACKS

    @property
    def said(self) -> Texts:
        """The rewrites, where there are any."""
        assert self.answer is not None
        return said(self.answer)


def said(answer: Mapping[str, Any]) -> Texts:
    """The rewrites in an answer of /v1/rewrite, or of /v1/signals."""
    rewrites = answer["stages"]["recall"]["queries"] if "format" in answer else answer["rewrites"]
    return tuple(rewrite["text"] for rewrite in rewrites)


def asked(path: str, query: str) -> dict[str, Any]:
    """What is asked for a query."""
    body: dict[str, Any] = {"query": query, "query_id": uuid.uuid4().hex, "num_rewrites": 4}
    return body if path == REWRITE else {**body, "candidates": [{"id": "a", "text": query}]}


@dataclass
class Searcher:
    """Searches at `urls` until `stop`.

    Args:
        urls: of the replicas.
        expected: (weights digest, path, query) -> rewrites, of all checkpoints that may answer.
        events: whether each answer is followed by a click.
    """

    urls: Sequence[str]
    expected: Expected
    events: bool = True
    searches: list[Search] = field(default_factory=list)
    to_report: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    unknown: int = 0

    def start(self) -> None:
        self._stopping, self._abandoned = threading.Event(), threading.Event()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop searching, and return when every event is acknowledged."""
        self._stopping.set()
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), f"{len(self.to_report)} events nobody acknowledges"

    def abandon(self) -> None:
        """Stop, whatever is left to report."""
        self._abandoned.set()
        self.stop()

    def more(self, searches: int, *, within_s: float = 60) -> None:
        """Return when so many more searches have ended, well or not."""
        goal = len(self.searches) + searches
        wait_until(lambda: len(self.searches) >= goal, within_s=within_s)

    def rewrites_again(self, *, within_s: float = 60) -> None:
        """Return when searches that begin from now on get rewrites."""
        began = time.monotonic()

        def rewritten() -> bool:
            late = [one for one in self.searches[-50:] if one.start_s > began and not one.failed]
            return any(one.said for one in late) and not any(one.degraded for one in late[-5:])

        wait_until(rewritten, within_s=within_s)

    def reports_again(self, *, within_s: float = 60) -> None:
        """Return when events that are reported from now on are acknowledged."""
        seen = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > seen, within_s=within_s)

    def refuses(self, *, within_s: float = 60) -> None:
        """Return when a replica has said that the store does not take an event."""
        wait_until(lambda: any(one.startswith("503 ") for one in self.refused), within_s=within_s)

    def since(self, moment_s: float) -> list[Search]:
        """The searches that began after a moment (`time.monotonic()`)."""
        return [one for one in self.searches if one.start_s > moment_s]

    def wrong(self) -> list[Search]:
        """Answers whose rewrites are not those of the checkpoint that they name."""
        return [one for one in self.searches if not one.failed and one.said and not self._is_right(one)]

    def facts(self) -> dict[str, float]:
        """What is told of it in the table; `degraded_s` is the longest time without a single rewrite."""
        last, longest, degraded = self.searches[0].start_s, 0.0, False
        for search in sorted(self.searches, key=lambda one: one.end_s):
            degraded |= search.degraded
            if not search.failed and search.said:
                longest, last, degraded = max(longest, (search.end_s - last) * degraded), search.end_s, False
        return {
            "searches": len(self.searches),
            "failed": sum(one.failed for one in self.searches),
            "retried": sum(one.tries > 1 for one in self.searches),
            "degraded": sum(one.degraded for one in self.searches),
            "degraded_s": round(longest, 1),
            "slowest_s": round(max(one.end_s - one.start_s for one in self.searches), 2),
            "acknowledged": len(self.acknowledged),
            "refused": len(self.refused),
            "wrong": len(self.wrong()),
        }

    def _is_right(self, search: Search) -> bool:
        assert search.answer is not None
        digest = search.answer["checkpoint"]["weights_digest"]
        return search.said == self.expected.get((digest, search.path, search.query))

    async def _work(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(self._client(session)) for _ in range(CLIENTS)]
            tasks.create_task(self._report_until(session, clients))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stopping.is_set():
            await self._search(session, next(self._numbers))
            await asyncio.sleep(PAUSE_S)

    async def _search(self, session: aiohttp.ClientSession, number: int) -> None:
        path = SIGNALS if number // len(QUERIES) % 2 else REWRITE
        query = QUERIES[number % len(QUERIES)]
        body = asked(path, query)
        began = time.monotonic()
        answer, failures = await self._post(session, number, path, body)
        tries = len(failures) + (answer is not None)
        self.searches.append(Search(began, time.monotonic(), path, query, tries, answer, tuple(failures)))
        if answer is not None and self.events:
            event = {"event_id": body["query_id"], "query_id": body["query_id"], "action_name": "click"}
            self.to_report.append({**event, "exposure": answer["exposure"]})

    async def _report_until(
        self, session: aiohttp.ClientSession, clients: Sequence[asyncio.Task[None]]
    ) -> None:
        for number in itertools.count():
            events, self.to_report = self.to_report[:MOST_EVENTS], self.to_report[MOST_EVENTS:]
            if self._abandoned.is_set() or (not events and all(client.done() for client in clients)):
                return
            if events:
                answer, failures = await self._post(session, number, "/v1/events", {"events": events})
                self.refused += failures
                if answer is None:
                    self.to_report += events
                else:
                    self.unknown += answer["unknown"] + len(answer["invalid"])
                    self.acknowledged |= {event["event_id"] for event in events}
            await asyncio.sleep(REPORT_S)

    async def _post(
        self, session: aiohttp.ClientSession, number: int, path: str, body: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """What the first that answers with 200 has said, and how those before it have failed."""
        failures: list[str] = []
        for url in (self.urls[number % len(self.urls)], self.urls[(number + 1) % len(self.urls)]):
            try:
                async with session.post(url + path, json=body) as response:
                    if response.status == 200:
                        return json.loads(await response.read()), failures
                    failures.append(f"{response.status} {await response.text()}")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failures.append(repr(error))
        return None, failures


@contextmanager
def searching(urls: Sequence[str], expected: Expected, **options: Any) -> Iterator[Searcher]:
    """One that has searched before anything breaks, and has stopped at the end."""
    searcher = Searcher(urls, expected, **options)
    searcher.start()
    try:
        searcher.more(len(QUERIES))
        yield searcher
    except BaseException:
        searcher.abandon()
        raise
    searcher.stop()
