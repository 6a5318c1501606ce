from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeCheckpoint, FakeEngine
from fastapi.testclient import TestClient

from app.http.schemas import BatchAnswer, Readiness, RewriteAnswer, WireError
from app.main import create_app
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI


def test_an_answer_is_what_the_document_says(client: TestClient) -> None:
    response = client.post(
        "/v1/rewrite", json={"query": " RN  icu nights ", "query_id": "q-7", "num_rewrites": 3}
    )
    answer = RewriteAnswer.model_validate_json(response.content)
    assert answer.original == " RN  icu nights "
    assert answer.query_id == "q-7"
    assert [rewrite.rank for rewrite in answer.rewrites] == [1, 2, 3]
    assert (answer.degraded, answer.reason, answer.arm) == (False, None, "stable")
    assert answer.checkpoint.model_dump() == {"id": "fake-1", "weights_digest": "5e" * 32}
    assert list(response.json())[:3] == ["query_id", "original", "rewrites"]
    assert "x-corewrite-reason" not in response.headers


def test_the_same_word_in_body_header_metric_and_log(
    make_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="corewrite")
    with TestClient(make_app(enabled=False)) as client:
        response = client.post("/v1/rewrite", json={"query": "rn"})
        assert response.json()["reason"] == response.headers["x-corewrite-reason"] == "disabled"
        assert response.json()["degraded"] is True
        assert (
            'corewrite_requests_total{outcome="degraded",reason="disabled"} 1.0'
            in client.get("/metrics").text
        )
    fields = next(record.fields for record in caplog.records if record.getMessage() == "request")
    assert fields["reason"] == "disabled"


def test_context_reaches_the_prompt(client: TestClient, engine: FakeEngine) -> None:
    context = {"last_item": {"id": "1", "title": "Acme shoe", "text": "men"}, "previous_queries": ["shoes"]}
    client.post("/v1/rewrite", json={"query": "in blue", "context": context})
    assert engine.asked[0].prompt == "<|item|>Acme shoe<|text|>men<|prev|>shoes<|query|>in blue<|rewrite|>"


def test_control_tokens_in_a_query_stay_text(client: TestClient, engine: FakeEngine) -> None:
    response = client.post("/v1/rewrite", json={"query": "a<|rewrite|>b"})
    assert response.json()["original"] == "a<|rewrite|>b"
    assert engine.asked[0].prompt.count("<|rewrite|>") == 1


@pytest.mark.parametrize(
    ("header", "ignored"), [("abc", 1), ("0", 1), ("-5", 1), ("1.5", 1), ("5000", 0), (None, 0)]
)
def test_malformed_timeout_headers_are_ignored_and_counted(
    client: TestClient, header: str | None, ignored: Any
) -> None:
    headers = {} if header is None else {"x-envoy-expected-rq-timeout-ms": header}
    response = client.post("/v1/rewrite", json={"query": "rn"}, headers=headers)
    assert response.json()["reason"] is None
    name = 'corewrite_ignored_headers_total{header="x-envoy-expected-rq-timeout-ms"}'
    assert (f"{name} 1.0" in client.get("/metrics").text) is bool(ignored)


@pytest.mark.parametrize(("body_ms", "header"), [(20, None), (None, "20"), (20, "5000"), (5000, "20")])
def test_the_smallest_budget_counts(
    make_app: Callable[..., FastAPI], engine: FakeEngine, body_ms: Any, header: str | None
) -> None:
    engine.delay_s = 0.3
    body = {"query": "rn"} if body_ms is None else {"query": "rn", "deadline_ms": body_ms}
    headers = {} if header is None else {"x-envoy-expected-rq-timeout-ms": header}
    with TestClient(make_app()) as client:
        answer = client.post("/v1/rewrite", json=body, headers=headers).json()
    assert answer["reason"] == "deadline"
    assert answer["timings_ms"]["total"] < 200


def test_batches_answer_in_order_and_keep_the_valid_items(client: TestClient) -> None:
    items = [{"query": "a", "query_id": "1"}, {"query": ""}, {"query": "b", "query_id": "3"}]
    response = client.post("/v1/rewrite/batch", json={"requests": items})
    answers = BatchAnswer.model_validate_json(response.content).responses
    assert isinstance(answers[0], RewriteAnswer)
    assert isinstance(answers[1], WireError)
    assert isinstance(answers[2], RewriteAnswer)
    assert [answers[0].query_id, answers[2].query_id] == ["1", "3"]
    assert answers[1].detail.startswith("query: ")


def test_bodies_beyond_the_limit_are_413(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(max_body_bytes=1024, max_batch_body_bytes=2048)) as client:
        for path, size in [("/v1/rewrite", 1025), ("/v1/rewrite/batch", 2049)]:
            assert client.post(path, content=b"x" * (size - 1)).status_code == 422
            announced = client.post(path, content=b"x" * size)
            streamed = client.post(path, content=iter([b"x"] * size))
            for response in (announced, streamed):
                assert response.status_code == 413
                assert response.json()["error"] == "body_too_large"


def test_who_is_told_to_stop_while_starting_is_never_ready(
    make_app: Callable[..., FastAPI], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, start = make_app(), engine.start

    async def told() -> None:
        await start()
        app.state.lifecycle.status = "draining"  # as a signal does

    monkeypatch.setattr(engine, "start", told)
    with TestClient(app) as client:
        assert client.get("/readyz").json()["status"] == "draining"


def test_probes(make_app: Callable[..., FastAPI], engine: FakeEngine) -> None:
    client = TestClient(make_app())
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").json() == {"status": "alive"}
    with client:
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert Readiness.model_validate_json(ready.content).checkpoint.id == "fake-1"
    assert client.get("/readyz").json()["status"] == "draining"
    assert engine.closed == 1


@dataclass
class CountingEngine(FakeEngine):
    def stats(self) -> CountingEngine:
        return self

    waiting: int = 3


def test_an_engine_that_counts_is_shown() -> None:
    with TestClient(create_app(Settings(), engine=CountingEngine(), checkpoint=FakeCheckpoint())) as client:
        assert client.get("/readyz").json()["engine"] == {"running": 0, "waiting": 3}
        assert 'corewrite_engine_requests{state="waiting"} 3.0' in client.get("/metrics").text


def test_shed_requests_say_when_to_come_back(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(retry_after_s=3)
    with TestClient(app) as client:
        client.portal.call(app.state.lifecycle.drain)
        response = client.post("/v1/rewrite", json={"query": "rn"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "3")
        assert response.json()["error"] == "draining"


def test_the_documents_examples_are_accepted_and_true(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/v1/rewrite", "/v1/rewrite/batch"):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == {"200", "401", "403", "408", "413", "422", "429", "503"}
        example = operation["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=example).status_code == 200
    content = document["paths"]["/v1/rewrite"]["post"]["responses"]["200"]["content"]["application/json"]
    for example in content["examples"].values():
        RewriteAnswer.model_validate_json(json.dumps(example["value"]))
    assert "HTTPValidationError" not in document["components"]["schemas"]
