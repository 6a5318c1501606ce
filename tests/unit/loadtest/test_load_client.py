from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ports import free_port

from loadtest.client import Client, Reply
from loadtest.proxy import way_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def replica(status: str, body: object, *headers: str) -> AsyncIterator[int]:
    """Answers everything alike; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
        data = json.dumps(body)
        lines = [
            f"HTTP/1.1 {status}",
            "content-type: application/json",
            f"content-length: {len(data)}",
            *headers,
        ]
        writer.write("\r\n".join([*lines, "connection: close", "", data]).encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def asked(*ports: int, times: int = 1) -> list[Reply]:
    async with Client([f"http://127.0.0.1:{port}" for port in ports]) as client:
        return [await client.post("/v1/rewrite", {}) for _ in range(times)]


def test_replicas_have_their_turn() -> None:
    async def scenario() -> None:
        async with replica("200 OK", {"who": 1}) as one, replica("200 OK", {"who": 2}) as two:
            assert [reply.body["who"] for reply in await asked(one, two, times=4)] == [1, 2, 1, 2]

    asyncio.run(scenario())


def test_where_one_is_gone_the_next_one_is_asked_once() -> None:
    async def scenario() -> None:
        async with replica("200 OK", {"who": 1}) as one:
            found = await asked(one, free_port(), times=4)
            assert [(reply.status, reply.retried) for reply in found] == [(200, False), (200, True)] * 2
        assert await asked(free_port(), free_port()) == [Reply(0, {}, retried=True)]

    asyncio.run(scenario())


def test_only_a_refusal_that_says_when_to_come_again_is_shed() -> None:
    async def scenario() -> None:
        async with (
            replica("429 Too Many Requests", {}, "retry-after: 1") as shed,
            replica("503 Service Unavailable", {}) as broken,
        ):
            assert await asked(shed, broken, times=2) == [Reply(429, {}, shed=True), Reply(503, {})]

    asyncio.run(scenario())


def test_a_slow_store_is_late_by_as_much_as_is_told() -> None:
    async def scenario() -> None:
        async with replica("200 OK", {"who": 1}) as one:
            with way_to(one) as proxy:
                (found,) = await asked(proxy.port)
                assert found.body == {"who": 1}
                began, proxy.latency_s = asyncio.get_running_loop().time(), 0.1
                (found,) = await asked(proxy.port)
                assert found.body == {"who": 1}
                # A chunk there and one back: it cannot be faster, however fast the machine.
                assert asyncio.get_running_loop().time() - began >= 0.2

    asyncio.run(scenario())


def test_a_proxy_before_nobody_ends_the_connection() -> None:
    with way_to(free_port()) as proxy:
        (found,) = asyncio.run(asked(proxy.port))
        assert found.status == 0
