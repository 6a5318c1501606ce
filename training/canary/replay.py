"""Searches replayed over HTTP, as a search page would have them: ask, rank, look, report.

Every search asks the service, and every event is reported to it. A client stays with one replica while that
answers; then the next one is asked, as a load balancer has it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from training.canary.pages import Pages
from training.canary.people import People, Search

CONCURRENCY = 32
EVENTS_AT_A_TIME = 200
PATIENCE_S = 30.0
AGAIN_S = 0.5
DEADLINE_MS = 5_000
"""Searches wait for their rewrites: this is about what rewrites do, on a machine that does everything."""


@dataclass(slots=True)
class Tally:
    """What was seen from outside, in numbers.

    Args:
        failed: searches that no replica has answered with a success.
        retried: requests that another replica had to answer.
        resent: reports that no replica took, which were sent again later.
        by: searches by the URL of the replica that has answered them.
        searches, changed, clicks, strict, ndcg, squares: by arm; searches, and sums over them, the last one
            of nDCG@10 squared.
        impacted: searches by arm that got a rewrite.
        reasons: why there was none, over all arms.
        exposed: clients who were shown something of a canary.
    """

    failed: int = 0
    retried: int = 0
    resent: int = 0
    by: Counter[str] = field(default_factory=Counter)
    searches: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    clicks: Counter[str] = field(default_factory=Counter)
    strict: Counter[str] = field(default_factory=Counter)
    impacted: Counter[str] = field(default_factory=Counter)
    ndcg: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    exposed: set[str] = field(default_factory=set)


class Replay:
    """People at a few replicas.

    Args:
        urls: of the replicas.
        people: who search.
        pages: what they see.
        twice: every report is sent twice, the second time to another replica.
    """

    def __init__(self, urls: Sequence[str], people: People, pages: Pages, *, twice: bool = False) -> None:
        self._urls, self._people, self._pages, self._twice = list(urls), people, pages, twice
        self._events: list[dict[str, Any]] = []
        self.tally = Tally()

    async def run(self, searches: int) -> None:
        """Have so many searches done and reported."""
        drawn = self._people.searches(searches)
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def one_after_another() -> None:
                for search in drawn:
                    await self._search(session, search)
                    if len(self._events) >= EVENTS_AT_A_TIME:
                        await self._report(session)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(CONCURRENCY):
                    tasks.create_task(one_after_another())
            while self._events:
                await self._report(session)

    async def _search(self, session: aiohttp.ClientSession, search: Search) -> None:
        asked = {
            "query": search.need.query,
            "query_id": search.query_id,
            "client_id": search.client_id,
            "deadline_ms": DEADLINE_MS,
        }
        found = await self._post(session, zlib.crc32(search.client_id.encode()), "/v1/rewrite", asked)
        if found is None:
            self.tally.failed += 1
            return
        url, answer = found
        self.tally.by[url] += 1
        page = await self._pages.of(search.need, answer)
        outcome = self._people.outcome(search, page.shown)
        tally, arm = self.tally, answer["arm"]
        tally.searches[arm] += 1
        tally.changed[arm] += outcome.changed
        tally.clicks[arm] += outcome.clicks
        tally.strict[arm] += outcome.stayed
        tally.impacted[arm] += bool(answer["rewrites"])
        tally.ndcg[arm] = tally.ndcg.get(arm, 0.0) + page.ndcg
        tally.squares[arm] = tally.squares.get(arm, 0.0) + page.ndcg**2
        tally.reasons[answer["reason"] or "rewritten"] += 1
        if arm == "canary" and answer["rewrites"]:
            tally.exposed.add(search.client_id)
        self._events += [
            {
                "event_id": f"{search.query_id}-{number}",
                "query_id": search.query_id,
                "client_id": search.client_id,
                "action_name": action,
                "exposure": answer["exposure"] or "",
            }
            for number, action in enumerate(outcome.actions())
        ]

    async def _report(self, session: aiohttp.ClientSession) -> None:
        """Send what is to be reported; what nobody takes is sent again with the next report."""
        events, self._events = self._events, []
        for start in range(0, len(events), EVENTS_AT_A_TIME):
            some = events[start : start + EVENTS_AT_A_TIME]
            replica = start // EVENTS_AT_A_TIME
            taken = [
                await self._post(session, replica + again, "/v1/events", {"events": some})
                for again in range(2 if self._twice else 1)
            ]
            if None in taken:
                self.tally.resent += 1
                self._events += some
                await asyncio.sleep(AGAIN_S)

    async def _post(
        self, session: aiohttp.ClientSession, first: int, path: str, body: dict[str, Any]
    ) -> tuple[str, dict[str, Any]] | None:
        """Which replica answers, the first or the next, and what; None: there was no success anywhere."""
        for attempt in range(len(self._urls)):
            url = self._urls[(first + attempt) % len(self._urls)]
            try:
                async with session.post(url + path, json=body) as response:
                    if response.ok:
                        self.tally.retried += attempt > 0
                        return url, dict(await response.json())
            except (aiohttp.ClientError, TimeoutError):
                continue
        return None
