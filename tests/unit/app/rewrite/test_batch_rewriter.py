from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeCheckpoint, FakeEngine
from httpx import ASGITransport, AsyncClient

from app.main import create_app
from app.settings import Settings

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def run(scenario: Any, engine: FakeEngine, **options: Any) -> Any:
    async def inside() -> Any:
        app = create_app(Settings(**options), engine=engine, checkpoint=FakeCheckpoint())
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
        ):
            return await scenario(client)

    return asyncio.run(inside())


def distinct(count: int) -> list[dict[str, Any]]:
    return [{"query": f"query {n:b} zz", "query_id": f"id-{n}"} for n in range(count)]


def test_a_full_batch_is_bounded_ordered_and_deadlock_free() -> None:
    engine = FakeEngine(delay_s=0.002)

    async def scenario(client: TestClient) -> None:
        response = await client.post("/v1/rewrite/batch", json={"requests": distinct(256)})
        answers = response.json()["responses"]
        assert [answer["query_id"] for answer in answers] == [f"id-{n}" for n in range(256)]
        assert all(not answer["degraded"] for answer in answers)

    run(scenario, engine, max_inflight=4, max_waiting=0, batch_concurrency=4)
    assert engine.peak == 4


def test_single_requests_pass_beside_batches() -> None:
    engine = FakeEngine(delay_s=0.01)

    async def scenario(client: TestClient) -> None:
        batches = [
            asyncio.create_task(client.post("/v1/rewrite/batch", json={"requests": distinct(100)}))
            for _ in range(3)
        ]
        await asyncio.sleep(0.02)
        single = await client.post("/v1/rewrite", json={"query": "rn icu", "deadline_ms": 300})
        assert single.json()["reason"] is None
        assert not any(batch.done() for batch in batches)
        for batch in batches:
            assert (await batch).status_code == 200

    run(scenario, engine, max_inflight=8, batch_concurrency=4)
    assert engine.peak <= 5


def test_too_many_batches_are_shed_as_a_whole() -> None:
    async def scenario(client: TestClient) -> None:
        tasks = [client.post("/v1/rewrite/batch", json={"requests": distinct(2)}) for _ in range(5)]
        statuses = sorted(response.status_code for response in await asyncio.gather(*tasks))
        assert statuses == [200, 200, 429, 429, 429]

    run(scenario, FakeEngine(delay_s=0.05), max_batches=1)


@pytest.mark.parametrize("header", [None, "350"])
def test_what_is_not_done_in_time_is_the_original(header: str | None) -> None:
    async def scenario(client: TestClient) -> None:
        items = [{**item, "deadline_ms": 350} for item in distinct(6)] if header is None else distinct(6)
        headers = {"x-envoy-expected-rq-timeout-ms": header} if header else {}
        response = await client.post("/v1/rewrite/batch", json={"requests": items}, headers=headers)
        reasons = [answer["reason"] for answer in response.json()["responses"]]
        assert reasons == [None] * 2 + ["deadline"] * 4

    run(scenario, FakeEngine(delay_s=0.2), batch_concurrency=2)
