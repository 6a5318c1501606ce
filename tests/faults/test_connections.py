"""Connections that do nothing, and bodies that never end: searches on other connections go on."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from searcher import searching
from world import World, judge_searches, learn, settings

from loadtest.processes import resident_mb
from training.canary.processes import Replica

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDLE = 10_000
LITTLE = 300
TRICKLING = 500
ONE_BYTE_S = 1.0
GET = b"GET /livez HTTP/1.1\r\nhost: idle\r\n\r\n"
POST = b"POST /v1/rewrite HTTP/1.1\r\nhost: slow\r\ncontent-length: 1000\r\n\r\n"


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many files this process may open meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault(
    broken="10,000 connections are opened and idle, half of them after one request",
    promised="searches on other connections do not notice; memory is bounded",
)
def test_ten_thousand_connections_are_idle(world: World, many_files: int, seen: dict[str, Any]) -> None:
    victim, count = world.replicas[0], min(IDLE, many_files - 500)
    assert victim.process is not None
    before_mb = resident_mb(victim.process.pid)

    async def open_all() -> list[Stream]:
        turns = asyncio.Semaphore(200)

        async def one(number: int) -> Stream:
            async with turns:
                reader, writer = await asyncio.open_connection("127.0.0.1", victim.port, limit=1024)
                if number % 2:
                    writer.write(GET)
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            return reader, writer

        return await asyncio.gather(*(one(number) for number in range(count)))

    with world.searching(events=False) as searcher, closing(asyncio.new_event_loop()) as loop:
        streams = loop.run_until_complete(open_all())
        began = time.monotonic()
        searcher.more(100)
        idle_mb = resident_mb(victim.process.pid)
        slowest_s = max(one.end_s - one.start_s for one in searcher.since(began))
        loop.run_until_complete(asyncio.sleep(0.1))  # for whatever has come meanwhile to be read
        # One that the server has closed is not closing on this side: its stream has an end.
        still_open = sum(not (reader.at_eof() or writer.is_closing()) for reader, writer in streams)
        for _, writer in streams:
            writer.transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
    seen.update(searcher.facts())
    seen["note"] = (
        f"{still_open:,} connections stayed open, {idle_mb - before_mb:.0f} MB more resident; "
        f"the slowest search meanwhile {slowest_s:.2f} s"
    )
    assert still_open == count == IDLE
    assert (seen["retried"], seen["degraded"]) == (0, 0)
    assert idle_mb - before_mb < 50_000 * count / 1e6  # bytes each


@pytest.mark.fault(
    broken="500 clients send a body of one byte a second (slow loris)",
    promised="408 after `body_timeout_s`; other searches do not notice",
)
def test_bodies_that_never_end(world: World, seen: dict[str, Any]) -> None:
    async def trickle() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.replicas[0].port)
        with closing(writer):
            writer.write(POST)
            answer = asyncio.ensure_future(reader.readuntil(b"\r\n"))
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait([answer], timeout=ONE_BYTE_S)
            return await answer

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(trickle() for _ in range(TRICKLING)))

    with world.searching(events=False) as searcher:
        began = time.monotonic()
        answers = asyncio.run(all_of_them())
        took_s = time.monotonic() - began
        searcher.more(20)
    seen.update(searcher.facts())
    seen["note"] = f"all {TRICKLING} were told 408 after {took_s:.1f} s, of a `body_timeout_s` of 2"
    assert {answer.split(b" ")[1] for answer in answers} == {b"408"}
    assert (seen["retried"], seen["degraded"]) == (0, 0)


@pytest.mark.fault(
    broken="more idle connections than the soft limit of open files allows",
    promised="the hard limit is what counts: others still get a connection",
)
def test_the_soft_limit_of_files_is_reached(tmp_path: Path, seen: dict[str, Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    replica = Replica("replica", tmp_path, settings(tmp_path))
    resource.setrlimit(resource.RLIMIT_NOFILE, (LITTLE, hard))
    try:
        replica.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        stack.callback(replica.kill)
        expected = learn(replica.url)
        for _ in range(2 * LITTLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", replica.port)))
        with searching([replica.url], expected, events=False) as searcher:
            searcher.more(20)
        judge_searches(searcher)
    seen.update(searcher.facts())
    seen["note"] = f"{2 * LITTLE} idle connections, of a soft limit of {LITTLE}"
