"""Replayed searches: each one asks, each event is reported, and what fails is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from training.canary.pages import Page
from training.canary.people import People
from training.canary.replay import Replay
from training.needs import Need
from training.users import User

NEEDS = [Need("icu rn", frozenset({"nurse"}))]
CERTAIN = User(eta=0.0, attraction=(0.0, 1.0), satisfaction=(0.0, 1.0))


class OnePage:
    async def of(self, _need: Need, _answer: Any) -> Page:
        return Page(("nurse",), 1.0)


class FakeService:
    """Two replicas; `broken` ones answer nothing but 503, and events only after so many refusals."""

    def __init__(self, *, broken: frozenset[int] = frozenset(), refuse_events: int = 0) -> None:
        self.broken, self.refuse_events = broken, refuse_events
        self.searches: Counter[int] = Counter()
        self.events: Counter[str] = Counter()
        self.reports: Counter[int] = Counter()

    def replica(self, number: int) -> TestServer:
        app = web.Application()
        app.router.add_post("/v1/rewrite", partial(self.rewrite, number=number))
        app.router.add_post("/v1/events", partial(self.take, number=number))
        return TestServer(app)

    async def rewrite(self, request: web.Request, number: int) -> web.Response:
        if number in self.broken:
            return web.json_response({}, status=503)
        asked = await request.json()
        self.searches[number] += 1
        canary = int(asked["query_id"].split("-")[-1]) % 2
        return web.json_response(
            {
                "arm": "canary" if canary else "stable",
                "rewrites": [{"text": "nurse", "confidence": 0.5}] if canary else [],
                "stages": ["finerank"],
                "reason": None if canary else "disabled",
                "exposure": f"token of {asked['query_id']}",
            }
        )

    async def take(self, request: web.Request, number: int) -> web.Response:
        if number in self.broken or self.refuse_events > 0:
            self.refuse_events -= 1
            return web.json_response({}, status=503)
        self.reports[number] += 1
        for event in (await request.json())["events"]:
            assert event["exposure"] == f"token of {event['query_id']}"
            self.events[event["event_id"]] += 1
        return web.json_response({})


def replayed(service: FakeService, *, searches: int = 200, twice: bool = False) -> Replay:
    async def story() -> Replay:
        replicas = [service.replica(number) for number in range(2)]
        for replica in replicas:
            await replica.start_server()
        urls = [str(replica.make_url("")).rstrip("/") for replica in replicas]
        people = People(NEEDS, clients=50, user=CERTAIN, seed=1)
        replay = Replay(urls, people, OnePage(), twice=twice)  # type: ignore[arg-type]
        await replay.run(searches)
        for replica in replicas:
            await replica.close()
        return replay

    return asyncio.run(story())


def test_everything_is_asked_and_reported_once() -> None:
    service = FakeService()
    tally = replayed(service).tally
    assert (tally.failed, tally.retried, tally.resent) == (0, 0, 0)
    assert sum(service.searches.values()) == 200
    assert len(service.searches) == 2  # clients are spread
    assert tally.searches == {"canary": 100, "stable": 100}
    assert tally.impacted == {"canary": 100, "stable": 0}
    assert tally.clicks == tally.strict == {"canary": 100, "stable": 100}
    assert tally.ndcg == {"canary": 100.0, "stable": 100.0}
    assert tally.reasons == {"rewritten": 100, "disabled": 100}
    assert 1 < len(tally.exposed) <= 50
    assert len(service.events) == 400  # a click and a strict one each
    assert set(service.events.values()) == {1}


def test_a_replica_that_fails_costs_nobody_a_search() -> None:
    service = FakeService(broken=frozenset({1}))
    tally = replayed(service).tally
    assert (tally.failed, service.searches[0]) == (0, 200)
    assert tally.retried > 50
    assert len(service.events) == 400


def test_searches_that_nobody_answers_have_failed() -> None:
    tally = replayed(FakeService(broken=frozenset({0, 1})), searches=20).tally
    assert tally.failed == 20
    assert not tally.searches


def test_reports_that_nobody_takes_are_sent_again() -> None:
    service = FakeService(refuse_events=3)
    assert replayed(service, searches=20).tally.resent >= 1
    assert len(service.events) == 40


def test_reports_are_sent_twice_to_two_replicas_where_asked_to() -> None:
    service = FakeService()
    replayed(service, twice=True)
    assert set(service.events.values()) == {2}
    assert service.reports[0] == service.reports[1]
