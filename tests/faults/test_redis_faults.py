"""A Redis that dies, hangs, lies or is slow: to the shared cache each is a miss, and never a wrong hit."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from fakes import DIGEST
from redis_server import RedisServer, running_redis

from app.contracts.reasons import Drop
from app.engines.breaker import Breaker
from app.rewrite import shared_cache
from app.rewrite.answer import Judged, Rewrite
from app.rewrite.generator import Key
from app.rewrite.shared_cache import SharedCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

MAX_FAILURES, OPEN_S = 3, 5.0
# Long enough for a busy machine; tests in which something hangs take a shorter one.
PATIENCE_S = 20.0


class Clock:
    """The breaker's time, which passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """A shared cache over `url`, with what it counted."""

    url: str
    timeout_s: float = PATIENCE_S
    clock: Clock = field(default_factory=Clock)
    results: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def cache(self) -> AsyncIterator[SharedCache]:
        self.breaker = Breaker(max_failures=MAX_FAILURES, open_s=OPEN_S)
        cache = SharedCache(
            self.url,
            ttl_s=60,
            timeout_s=self.timeout_s,
            scope="",
            breaker=self.breaker,
            on_result=self.results.append,
            clock=self.clock,
        )
        try:
            yield cache
        finally:
            await cache.close()

    def counted(self) -> list[str]:
        """What was counted since the last call."""
        counted, self.results[:] = list(self.results), []
        return counted


def key(number: int) -> Key:
    return Key(weights_digest=DIGEST, prompt=f"<|query|>{number}<|rewrite|>", locale="", num_completions=4)


def judged(number: int) -> Judged:
    return Judged((Rewrite(f"answer {number}", -1.0, 0.5),), None, {Drop.COPY: 1}, DIGEST, "fake-1")


async def written(cache: SharedCache, *numbers: int) -> None:
    for number in numbers:
        cache.put(key(number), judged(number))
    await asyncio.gather(*cache._pending)


def run(scenario: Coroutine[Any, Any, None], loop: str = "asyncio") -> None:
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.mark.fault(
    broken="Redis is killed (-9), stays dead, comes back empty",
    promised="each look-up is a miss; after a few nobody asks any more, and a probe finds it back",
)
def test_killed_and_started_again(redis: RedisServer) -> None:
    client = Client(redis.url)

    async def scenario() -> None:
        async with client.cache() as cache:
            await written(cache, 1)
            assert await cache.get(key(1)) == judged(1)
            redis.kill()
            # Each request goes on; after so many failures nobody even asks.
            for _ in range(MAX_FAILURES + 3):
                assert await cache.get(key(1)) is None
            await written(cache, 2)
            assert client.counted() == ["hit", *["error"] * MAX_FAILURES, *["skipped"] * 4]
            assert client.breaker.state == "open"

            client.clock.now = OPEN_S  # still dead: the probe fails, and the breaker stays open
            assert await cache.get(key(1)) is None
            assert await cache.get(key(1)) is None
            assert client.counted() == ["error", "skipped"]

            redis.start()
            assert await cache.get(key(1)) is None
            assert client.counted() == ["skipped"]
            client.clock.now = 2 * OPEN_S
            assert await cache.get(key(1)) is None  # the probe: it lives, and remembers nothing
            assert client.breaker.state == "closed"
            await written(cache, 1)
            assert await cache.get(key(1)) == judged(1)
            assert client.counted() == ["miss", "hit"]

    run(scenario())


@pytest.mark.fault(
    broken="Redis is killed (-9) and back between two look-ups",
    promised="a miss at most",
)
def test_a_restart_between_two_requests_is_not_even_noticed(redis: RedisServer) -> None:
    client = Client(redis.url)

    async def scenario() -> None:
        async with client.cache() as cache:
            await written(cache, 1)
            redis.kill()
            redis.start()
            await asyncio.sleep(0)
            assert await cache.get(key(1)) is None
            await written(cache, 1)
            assert await cache.get(key(1)) == judged(1)
            assert client.counted() in (["miss", "hit"], ["error", "hit"])

    run(scenario())


@pytest.mark.fault(
    broken="Redis hangs (SIGSTOP)",
    promised="look-ups end with `redis_timeout_ms`; after a few nobody asks any more",
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_hung_it_costs_a_few_timeouts_and_then_nothing(redis: RedisServer, loop: str) -> None:
    """That it ends at all is the bound: nothing here but `timeout_s` would end it."""
    client = Client(redis.url, timeout_s=0.2)

    async def scenario() -> None:
        async with client.cache() as cache:
            while await cache.get(key(1)) is None:  # a busy machine may need more than one go
                client.clock.now += OPEN_S
                await written(cache, 1)
            client.counted()
            redis.freeze()
            try:
                # More than there are connections: those that wait for a turn are bounded too.
                found = await asyncio.gather(*(cache.get(key(1)) for _ in range(3 * shared_cache.MAX_READS)))
                assert set(found) == {None}
                assert set(client.counted()) <= {"error", "skipped"}
                assert client.breaker.state == "open"
                assert await cache.get(key(1)) is None
                assert client.counted() == ["skipped"]
                client.clock.now += OPEN_S
                probe = asyncio.create_task(cache.get(key(1)))
                await asyncio.sleep(0)
                assert await cache.get(key(1)) is None  # one probe at a time
                assert client.counted() == ["skipped"]
                assert await probe is None
                assert client.counted() == ["error"]
            finally:
                redis.thaw()
            found_again = None
            while found_again is None:
                client.clock.now += OPEN_S
                found_again = await cache.get(key(1))
            assert found_again == judged(1)

    run(scenario(), loop)


@pytest.mark.fault(
    broken="Redis hangs under writes",
    promised="nobody waits for a write; those that wait are bounded in number",
)
def test_writes_to_a_hung_one_hold_nobody_up_and_stay_within_the_bound(redis: RedisServer) -> None:
    client = Client(redis.url, timeout_s=0.2)

    async def scenario() -> None:
        async with client.cache() as cache:
            redis.freeze()
            extra = 10
            for number in range(shared_cache.MAX_PENDING_WRITES + extra):
                cache.put(key(number), judged(number))
            assert len(cache._pending) == shared_cache.MAX_PENDING_WRITES
            assert client.counted() == ["skipped"] * extra
            await asyncio.gather(*cache._pending)
            counted = client.counted()
            assert len(counted) == shared_cache.MAX_PENDING_WRITES
            assert set(counted) <= {"error", "skipped"}
            cache.put(key(1), judged(1))
            # Closing is bounded too, with the server still hung.

    try:
        run(scenario())
    finally:
        redis.thaw()


@pytest.mark.fault(
    broken="callers leave while Redis hangs",
    promised="no connection is lost, no reply is mixed up",
)
def test_cancelled_in_a_hung_server_the_connections_are_usable_again(redis: RedisServer) -> None:
    client = Client(redis.url)

    async def scenario() -> None:
        async with client.cache() as cache:
            await written(cache, *range(50))
            for _ in range(3):
                redis.freeze()
                asked = [asyncio.create_task(cache.get(key(number))) for number in range(50)]
                await asyncio.sleep(0.02)
                for task in asked:
                    task.cancel()
                ended = await asyncio.gather(*asked, return_exceptions=True)
                assert {type(end) for end in ended} == {asyncio.CancelledError}
                redis.thaw()
                found = await asyncio.gather(*(cache.get(key(number)) for number in range(50)))
                assert found == [judged(number) for number in range(50)]
            assert client.counted() == ["hit"] * 150  # a cancelled look-up is nobody's result
            assert client.breaker.state == "closed"

    run(scenario())


@asynccontextmanager
async def slow_way_to(port: int, rng: random.Random) -> AsyncIterator[int]:
    """A port that leads to `port`, each piece of the way back taking up to 3 ms."""
    ends: set[asyncio.Task[None]] = set()

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, most_s: float) -> None:
        try:
            while piece := await source.read(512):
                await asyncio.sleep(rng.uniform(0, most_s))
                target.write(piece)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        there = asyncio.create_task(carry(reader, up_writer, 0.0))
        back = asyncio.create_task(carry(up_reader, writer, 0.003))
        ends.update((there, back))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@pytest.mark.fault(
    broken="callers leave at any moment of a slow look-up",
    promised="nobody gets the reply of another",
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cancelled_at_any_moment_no_look_up_gets_anothers_reply(redis: RedisServer, loop: str) -> None:
    """A connection left with an unread reply would hand it to whoever comes next (redis-py #2624)."""
    rng = random.Random(7)

    async def scenario() -> None:
        async with slow_way_to(redis.port, rng) as port:
            client = Client(f"redis://127.0.0.1:{port}/2")
            async with client.cache() as cache:
                await written(cache, *range(100))
                for _ in range(15):
                    asked = {number: asyncio.create_task(cache.get(key(number))) for number in range(100)}
                    for task in rng.sample(list(asked.values()), 60):
                        asyncio.get_running_loop().call_later(rng.uniform(0, 0.03), task.cancel)
                    await asyncio.wait(asked.values())
                    for number, task in asked.items():
                        assert task.cancelled() or task.result() == judged(number)
                    found = await asyncio.gather(*(cache.get(key(number)) for number in range(100)))
                    assert found == [judged(number) for number in range(100)]
                # Not one reply was even looked at by another: that would be an error.
                assert set(client.counted()) == {"hit"}
                assert not cache._pool._in_use_connections
                assert (
                    len(cache._pool._available_connections)
                    <= shared_cache.MAX_READS + shared_cache.MAX_WRITES
                )

    run(scenario(), loop)


@pytest.mark.fault(
    broken="something that is no Redis answers, or answers nonsense",
    promised="a miss, never a hit",
)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$5\r\nab",
        b"$99999999999\r\nab",
        b"$-7\r\n",
        b"*2\r\n$1\r\na\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-ERR max number of clients reached\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"*-1\r\n",
        b"\x00" * 100,
    ],
    ids=repr,
)
def test_what_is_no_redis_is_a_miss(answer: bytes) -> None:
    async def scenario() -> None:
        async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer * 8)
            await reader.read(100_000)
            writer.close()

        server = await asyncio.start_server(lie, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            client = Client(f"redis://127.0.0.1:{port}", timeout_s=0.3)
            async with client.cache() as cache:
                for _ in range(MAX_FAILURES):
                    assert await cache.get(key(1)) is None
                await written(cache, 1)
            counted = client.counted()
            assert counted[0] in {"error", "miss"}  # a null array is Redis' old way to say "nothing"
            assert "hit" not in counted

    run(scenario())
