"""Rates, tokens and failures, through the real app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes import FakeEngine
    from fastapi import FastAPI

QUERY = {"query": "rn icu"}
TOKEN, OTHER = "right", "other"
WRONG = {"authorization": "Bearer wrong"}
RIGHT = {"authorization": "Bearer right"}


def test_who_asks_too_often_is_refused_before_any_work(
    make_app: Callable[..., FastAPI], engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="corewrite")
    with TestClient(make_app(client_rate_per_s=0.001, client_burst=3, cache_entries=0)) as client:
        statuses = [client.post("/v1/rewrite", json=QUERY).status_code for _ in range(3)]
        assert statuses == [200] * 3
        asked = len(engine.asked)
        refused = client.post("/v1/rewrite", content=b"not even JSON")
        assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
        assert 900 <= int(refused.headers["retry-after"]) <= 1000
        assert refused.headers["traceparent"]
        assert len(engine.asked) == asked
        assert [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        metrics = client.get("/metrics").text
    assert 'corewrite_shed_total{cause="rate_limited"} 1.0' in metrics
    assert 'corewrite_requests_total{outcome="shed",reason="none"} 1.0' in metrics
    line = [record.fields for record in caplog.records if record.getMessage() == "request"][-1]
    assert (line["status"], line["error"], line["client"]) == (429, "rate_limited", "testclient")


def test_clients_do_not_pay_for_each_other(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(client_rate_per_s=0.001, client_burst=1, client_header="x-real-ip")
    with TestClient(app) as client:

        def ask(address: str) -> int:
            return client.post("/v1/rewrite", json=QUERY, headers={"x-real-ip": address}).status_code

        assert [ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")] == [200, 429, 200]


def test_a_batch_costs_what_its_items_would(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(client_rate_per_s=0.001, client_burst=10)) as client:
        answers = [client.post("/v1/rewrite/batch", json={"requests": [QUERY] * 9}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_no_rate_is_asked_for_by_default(client: TestClient) -> None:
    assert {client.post("/v1/rewrite", json=QUERY).status_code for _ in range(300)} == {200}


def activate(client: TestClient, headers: dict[str, str]) -> Any:
    return client.post("/admin/checkpoints/activate", json={"id": "fake-1"}, headers=headers)


def test_tokens_cannot_be_guessed_for_long(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(admin_token=TOKEN, max_token_failures=3, client_header="x-real-ip")
    with TestClient(app) as client:
        assert [activate(client, {}).status_code for _ in range(5)] == [401] * 5  # which is no guess
        assert [activate(client, WRONG).status_code for _ in range(4)] == [401] * 3 + [429]
        blocked = activate(client, RIGHT)
        assert (blocked.status_code, blocked.json()["error"]) == (429, "too_many_failures")
        assert 1 <= int(blocked.headers["retry-after"]) <= 20
        assert activate(client, {**RIGHT, "x-real-ip": "192.0.2.1"}).status_code not in {401, 429}
        arm = {**WRONG, "x-corewrite-arm": "canary"}  # the same token opens the same door elsewhere
        assert client.post("/v1/rewrite", json=QUERY, headers=arm).status_code == 429
        metrics = client.get("/metrics").text
    for cause, number in (("missing", 5), ("wrong", 3), ("blocked", 3)):
        assert f'corewrite_refused_tokens_total{{cause="{cause}"}} {number}.0' in metrics
    for outcome in ("shed", "failed"):  # nobody's search
        assert f'outcome="{outcome}"' not in metrics
    # That of the tester alone is, whose arm was refused.
    assert 'corewrite_requests_total{outcome="invalid",reason="none"} 1.0' in metrics


@pytest.mark.parametrize(
    "given", ["", "right", "Basic right", "Bearer", "Bearer ", "Bearer right2", "Bearer righ", "Bearer \xff"]
)
def test_only_the_token_is_the_token(make_app: Callable[..., FastAPI], given: str) -> None:
    with TestClient(make_app(admin_token=TOKEN)) as client:
        headers = [(b"authorization", given.encode("latin-1"))]
        assert client.post("/admin/checkpoints/activate", headers=headers).status_code == 401


@pytest.mark.parametrize("given", ["Bearer", "Bearer ", "Bearer x"])
def test_an_empty_token_is_nobodys(make_app: Callable[..., FastAPI], given: str) -> None:
    with TestClient(make_app(admin_token="")) as client:
        assert activate(client, {"authorization": given}).status_code == 401


def test_events_ask_for_their_token_where_there_is_one(make_app: Callable[..., FastAPI]) -> None:
    events = {"events": [{"query_id": "q-1", "action_name": "click"}]}
    with TestClient(make_app(rollouts="sqlite://", exposure_key="k" * 32)) as client:
        assert client.post("/v1/events", json=events).status_code == 200
        assert "security" not in client.get("/openapi.json").json()["paths"]["/v1/events"]["post"]
    app = make_app(rollouts="sqlite://", exposure_key="k" * 32, events_token=TOKEN, admin_token=OTHER)
    with TestClient(app) as client:
        assert client.post("/v1/events", json=events).status_code == 401
        assert client.post("/v1/events", json=events, headers=WRONG).status_code == 401
        other = {"authorization": "Bearer other"}
        assert client.post("/v1/events", json=events, headers=other).status_code == 401
        assert client.post("/v1/events", json=events, headers=RIGHT).status_code == 200
        document = client.get("/openapi.json").json()
    assert document["paths"]["/v1/events"]["post"]["security"] == [{"events": []}]
    assert "events" in document["components"]["securitySchemes"]


def test_a_header_that_clients_begin_themselves_is_refused() -> None:
    with pytest.raises(ValidationError, match="x-real-ip"):
        Settings(client_header="X-Forwarded-For")
