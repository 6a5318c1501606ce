from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeCheckpoint, FakeEngine, completion
from redis_server import RedisServer, running_redis
from starlette.testclient import TestClient

from app.contracts.reasons import Reason
from app.errors import CorewriteError, EngineFailedError, EngineUnavailableError
from app.http.schemas import RewriteRequest
from app.main import create_app
from app.settings import Settings
from app.warm import worker
from app.warm.worker import Outcome, open_app, warmer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

QUERIES = ("rn", "lvn", "cna", "line cook")


@pytest.fixture(scope="module")
def started() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(started: RedisServer) -> RedisServer:
    started.ask("FLUSHALL")
    started.ask("CONFIG", "SET", "maxmemory", "0")
    return started


def settings(redis: RedisServer, **options: Any) -> Settings:
    return Settings(redis_url=redis.url, breaker_open_s=0.01, **options)


def warm(
    settings: Settings, engine: FakeEngine, *queries: str, refresh: bool = False, concurrency: int = 4
) -> Counter[Outcome]:
    outcomes: Counter[Outcome] = Counter()

    async def run() -> None:
        app = await open_app(settings, engine=engine, checkpoint=FakeCheckpoint())
        async with app.router.lifespan_context(app):
            await warmer_of(app, settings, refresh=refresh).warm_all(
                [RewriteRequest(query=query) for query in queries],
                concurrency=concurrency,
                on_outcome=lambda outcome: outcomes.update([outcome]),
            )

    asyncio.run(run())
    return outcomes


def answers(settings: Settings, engine: FakeEngine, *queries: str) -> list[dict[str, Any]]:
    """What a replica says that was started after the warming."""
    app = create_app(settings, engine=engine, checkpoint=FakeCheckpoint())
    with TestClient(app) as client:
        return [client.post("/v1/rewrite", json={"query": query}).json() for query in queries]


def test_a_replica_finds_all_that_was_warmed(redis: RedisServer) -> None:
    assert warm(settings(redis), FakeEngine(), *QUERIES) == {Outcome("generated"): 4}
    replica = FakeEngine()
    found = answers(settings(redis, redis_timeout_ms=5000), replica, *QUERIES)
    assert [answer["cache"] for answer in found] == ["hit"] * 4
    assert [answer["rewrites"][0]["text"] for answer in found] == [f"{query} jobs" for query in QUERIES]
    assert not replica.asked


def test_a_second_run_generates_only_what_is_missing(redis: RedisServer) -> None:
    warm(settings(redis), FakeEngine(), *QUERIES[:3])
    again = FakeEngine()
    assert warm(settings(redis), again, *QUERIES) == {Outcome("already_there"): 3, Outcome("generated"): 1}
    assert len(again.asked) == 1


def test_refreshing_replaces_what_is_there(redis: RedisServer) -> None:
    warm(settings(redis), FakeEngine(), *QUERIES)
    better = FakeEngine(completions=lambda query: [completion(f"{query} better")])
    assert warm(settings(redis), better, *QUERIES, refresh=True) == {Outcome("generated"): 4}
    assert len(better.asked) == 4
    found = answers(settings(redis, redis_timeout_ms=5000), FakeEngine(), "rn")
    assert found[0]["rewrites"][0]["text"] == "rn better"


def test_an_entry_without_a_rewrite_is_an_entry(redis: RedisServer) -> None:
    engine = FakeEngine(completions=lambda query: [completion(query)])
    assert warm(settings(redis), engine, "rn", "cna") == {Outcome("generated", Reason.NO_CHANGE): 2}
    assert warm(settings(redis), engine, "rn", "cna") == {Outcome("already_there"): 2}


def test_failures_are_counted_and_the_others_go_on(redis: RedisServer) -> None:
    def some(query: str) -> Any:
        if query in {"lvn", "cna"}:
            raise EngineFailedError("overflow")
        return [completion(f"{query} jobs")]

    engine = FakeEngine(completions=some)
    options = {"breaker_max_failures": 10}
    assert warm(settings(redis, **options), engine, *QUERIES) == {
        Outcome("generated"): 2,
        Outcome("failed", Reason.ENGINE_ERROR): 2,
    }
    # The run after that has only those to do.
    assert warm(settings(redis), FakeEngine(), *QUERIES) == {
        Outcome("already_there"): 2,
        Outcome("generated"): 2,
    }


def test_an_engine_that_comes_back_is_waited_for(redis: RedisServer) -> None:
    calls = iter([EngineUnavailableError("restarting")])

    def soon(query: str) -> Any:
        for error in calls:
            raise error
        return [completion(f"{query} jobs")]

    assert warm(settings(redis), FakeEngine(completions=soon), "rn") == {Outcome("generated"): 1}


def test_one_that_does_not_is_a_failure(redis: RedisServer) -> None:
    engine = FakeEngine(error=EngineUnavailableError("down"))
    failed = {Outcome("failed", Reason.ENGINE_UNAVAILABLE): 1}
    assert warm(settings(redis), engine, "rn") == failed
    assert len(engine.asked) == worker.TRIES


def test_what_no_model_reads_is_neither_generated_nor_failed(redis: RedisServer) -> None:
    engine = FakeEngine()
    assert warm(settings(redis), engine, "ﷺ" * 100) == {Outcome("too_long"): 1}
    assert not engine.asked


def test_the_kill_switch_and_a_memory_do_not_keep_it_from_warming(redis: RedisServer) -> None:
    off = settings(redis, enabled=False, mode="nearline", cache_entries=10)
    assert warm(off, FakeEngine(), *QUERIES) == {Outcome("generated"): 4}


def test_no_more_than_so_many_at_a_time(redis: RedisServer) -> None:
    engine = FakeEngine(delay_s=0.001)
    warm(settings(redis), engine, *(str(number) for number in range(50)), concurrency=3)
    assert engine.peak == 3


def test_a_redis_that_takes_no_writes_any_more_ends_it(redis: RedisServer) -> None:
    def full(query: str) -> Any:
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        return [completion(f"{query} jobs")]

    with pytest.raises(CorewriteError, match="takes no writes"):
        warm(settings(redis), FakeEngine(completions=full), *QUERIES)


@pytest.mark.parametrize("refresh", [False, True])
def test_a_write_that_was_lost_is_made_again(redis: RedisServer, *, refresh: bool) -> None:
    warm(settings(redis), FakeEngine(completions=lambda query: [completion(f"{query} old")]), *QUERIES[2:])
    calls: list[str] = []

    def loses_the_first(query: str) -> Any:
        redis.ask("CONFIG", "SET", "maxmemory", "0" if calls else "1")
        calls.append(query)
        return [completion(f"{query} jobs")]

    query = QUERIES[3] if refresh else QUERIES[0]
    outcomes = warm(settings(redis), FakeEngine(completions=loses_the_first), query, refresh=refresh)
    assert outcomes == {Outcome("generated"): 1}
    assert len(calls) > 1
    found = answers(settings(redis, redis_timeout_ms=5000), FakeEngine(), query)
    assert (found[0]["cache"], found[0]["rewrites"][0]["text"]) == ("hit", f"{query} jobs")


def test_without_a_redis_there_is_nothing_to_fill() -> None:
    with pytest.raises(CorewriteError, match="REWRITE_REDIS_URL"):
        asyncio.run(open_app(Settings(), engine=FakeEngine(), checkpoint=FakeCheckpoint()))


def test_a_redis_that_is_not_there_is_told_before_any_work() -> None:
    engine = FakeEngine()
    with pytest.raises(CorewriteError, match="takes no writes") as caught:
        warm(Settings(redis_url="redis://:pa55@127.0.0.1:1"), engine, "rn")
    assert "pa55" not in str(caught.value)
    assert engine.started == 0


def test_interrupted_what_is_done_stays_done(redis: RedisServer) -> None:
    engine = FakeEngine()

    def endless(query: str) -> Any:
        if query == "cna":
            engine.gate = asyncio.Event()
        return [completion(f"{query} jobs")]

    engine.completions = endless

    async def run() -> None:
        app = await open_app(settings(redis), engine=engine, checkpoint=FakeCheckpoint())
        async with app.router.lifespan_context(app):
            warmer = warmer_of(app, settings(redis), refresh=False)
            seen: list[Outcome] = []
            third = asyncio.Event()

            def on_outcome(outcome: Outcome) -> None:
                seen.append(outcome)
                if len(seen) == 3:
                    third.set()

            requests = [RewriteRequest(query=query) for query in QUERIES]
            task = asyncio.create_task(warmer.warm_all(requests, concurrency=1, on_outcome=on_outcome))
            await third.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert warm(settings(redis), FakeEngine(), *QUERIES) == {
        Outcome("already_there"): 3,
        Outcome("generated"): 1,
    }
