"""The service as in production, small: replicas, a store, a Redis, each behind a way that can be spoilt."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from redis_server import RedisServer, running_redis
from searcher import QUERIES, REWRITE, SIGNALS, Searcher, asked, said, searching
from sqlalchemy import func, select

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.registry.place import Place
from app.registry.store import Registry
from app.rollout.database import Database
from app.rollout.tables import COUNTS, EVENTS
from loadtest.proxy import Way, way_to
from training.canary.postgres import PostgresServer, running_postgres
from training.canary.processes import Replica
from training.canary.service import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from searcher import Expected

DEADLINE_MS = 5_000
"""The machine is busy: what is asked here is not how fast it is."""


@dataclass(frozen=True)
class World:
    """Two replicas; `database` is the store's URL past its way."""

    folder: Path
    replicas: tuple[Replica, ...]
    store: PostgresServer
    way_to_store: Way
    redis: RedisServer
    way_to_redis: Way
    database: str
    expected: Expected

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    @contextmanager
    def searching(self, **options: Any) -> Iterator[Searcher]:
        """Searches and events go on; at the end every acknowledged event counts once, or this fails."""
        before = clicks(self.database)
        with searching(self.urls, self.expected, **options) as searcher:
            yield searcher
        judge(searcher, self.database, before)


def judge(searcher: Searcher, database: str, clicks_before: float) -> None:
    """Fail unless all that is promised was kept: no search lost, none wrong, each event counted once."""
    judge_searches(searcher)
    assert (searcher.unknown, searcher.to_report) == (0, [])
    assert searcher.acknowledged <= event_ids(database)
    assert clicks(database) - clicks_before == len(searcher.acknowledged)


def judge_searches(searcher: Searcher) -> None:
    """Fail unless each was answered with its original, and by the checkpoint that the answer names."""
    assert [one for one in searcher.searches if one.failed] == []
    assert searcher.wrong() == []


def clicks(database: str) -> float:
    """All that the store has counted."""
    return float(_asked(database, select(func.sum(COUNTS.c.clicks)))[0] or 0.0)


def event_ids(database: str) -> set[str]:
    """Those that the store knows."""
    return set(_asked(database, select(EVENTS.c.id)))


def _asked(url: str, query: Any) -> list[Any]:
    database = Database(url)
    try:
        with database.begin() as connection:
            return list(connection.scalars(query))
    finally:
        database.close()


def make_registry(url: str) -> str:
    """Put the default checkpoint into a registry, as stable; return its address."""
    registry = Registry(Place.at(url))
    digest = registry.push(DEFAULT_CHECKPOINT)
    registry.aliases.point("stable", digest, who="ann", why="it serves", when=datetime.now(UTC))
    return digest


def learn(url: str) -> Expected:
    """What the checkpoint that serves there says, asked while nothing is broken."""

    async def ask() -> Expected:
        found = {}
        async with aiohttp.ClientSession(url) as session:
            for path in (REWRITE, SIGNALS):
                for query in QUERIES:
                    body = {**asked(path, query), "deadline_ms": 30_000}
                    async with session.post(path, json=body) as response:
                        answer = await response.json()
                    assert not answer["degraded"] or answer["reason"] in {
                        "no_change",
                        "low_confidence",
                        "guard",
                    }
                    found[answer["checkpoint"]["weights_digest"], path, query] = said(answer)
        return found

    return asyncio.run(ask())


def settings(folder: Path, **options: object) -> dict[str, object]:
    """Those of a replica with rollouts whose every miss asks the engine."""
    return {
        "registry": folder / "registry",
        "checkpoints": folder / "checkpoints",
        "admin_token": TOKEN,
        "exposure_key": TOKEN,
        "deadline_ms": DEADLINE_MS,
        "signals_deadline_ms": DEADLINE_MS,
        "relevance": "none",
        "log_level": "warning",
        "engine_threads": 1,
        "rollout_flush_s": 0.1,
        "rollout_poll_s": 0.1,
        "breaker_open_s": 0.2,
        "cache_entries": 0,
        "body_timeout_s": 2,
        "header_timeout_s": 300,  # connections that are idle stay so
        **options,
    }


@contextmanager
def started(replicas: tuple[Replica, ...]) -> Iterator[None]:
    """All of them, gone at the end."""
    try:
        for replica in replicas:
            replica.start()
        yield
    finally:
        for replica in replicas:
            replica.kill()


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """Start all of it; it is gone at the end."""
    make_registry(str(folder / "registry"))
    with ExitStack() as stack:
        store, redis = stack.enter_context(running_postgres()), stack.enter_context(running_redis())
        database = store.database()
        ways = [stack.enter_context(way_to(server.port)) for server in (store, redis)]
        common = settings(
            folder,
            rollouts=database.replace(f":{store.port}/", f":{ways[0].port}/"),
            redis_url=redis.url.replace(f":{redis.port}/", f":{ways[1].port}/"),
        )
        replicas = tuple(Replica(f"replica-{number}", folder, common) for number in (1, 2))
        stack.enter_context(started(replicas))
        expected = learn(replicas[0].url)
        yield World(folder, replicas, store, ways[0], redis, ways[1], database, expected)
