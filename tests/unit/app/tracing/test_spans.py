"""Traces, through the real app, into an exporter that keeps them: what is sent is what is declared."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from fakes import DIGEST, FakeCheckpoint, FakeEngine, FakeRelevance, completion
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient
from waiting import wait_until

from app.logs import JsonFormatter
from app.main import create_app
from app.settings import Settings
from app.telemetry import LOGGER
from app.tracing.declared import REQUEST, SPANS

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
QUERY = "registerd nurse icu"
CANDIDATES = [
    {"id": "a", "text": "icu nurse", "base_score": {"rawrank": 0.5, "finerank": 0.6}},
    {"id": "b", "text": "shop clerk", "base_score": {"rawrank": 0.4, "finerank": 0.3}},
]


class Told:
    """The app under trace; its spans are there once it has stopped."""

    def __init__(self, engine: FakeEngine | None = None, **settings: object) -> None:
        self.engine = engine or FakeEngine()
        self._exporter = InMemorySpanExporter()
        self._app = create_app(
            Settings(**{"deadline_ms": 2000, **settings}),
            engine=self.engine,
            checkpoint=FakeCheckpoint(),
            relevance=FakeRelevance(),
            spans=self._exporter,
        )

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        with TestClient(self._app, raise_server_exceptions=False) as client:
            yield client

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, *names: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name in names]


def until_cached(client: TestClient, query: str) -> None:
    wait_until(lambda: client.post("/v1/rewrite", json={"query": query}).json()["cache"] == "hit")


def hexes(span: ReadableSpan) -> tuple[str, str]:
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return f"{span.parent.span_id:016x}" if span.parent else None


@pytest.fixture
def log() -> Iterator[list[dict[str, object]]]:
    lines: list[dict[str, object]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler = Kept()
    handler.setFormatter(JsonFormatter())
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield lines
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def test_a_request_is_a_tree_under_the_callers_span(log: list[dict[str, object]]) -> None:
    told = Told()
    with told.client() as client:
        answer = client.post("/v1/rewrite", json={"query": QUERY, "query_id": "q"}, headers=SAMPLED)
    (request,) = told.named("POST /v1/rewrite")
    assert request.kind is SpanKind.SERVER
    assert request.status.status_code is StatusCode.UNSET
    assert (hexes(request)[0], parent_of(request)) == (TRACE, PARENT)
    assert request.parent is not None
    assert request.parent.is_remote
    # The same ids where the caller and who reads logs look.
    assert answer.headers["traceparent"] == f"00-{TRACE}-{hexes(request)[1]}-01"
    (line,) = [line for line in log if line["event"] == "request"]
    assert (line["trace_id"], line["span_id"]) == hexes(request)
    attributes = dict(request.attributes or {})
    assert attributes["http.route"] == attributes["url.path"] == "/v1/rewrite"
    assert attributes["http.response.status_code"] == 200
    assert attributes["corewrite.query_hash"] == line["query_hash"]
    (rewrite,) = told.named("rewrite")
    assert dict(rewrite.attributes or {}) == {
        "corewrite.arm": answer.json()["arm"],
        "corewrite.cache": "miss",
        "corewrite.checkpoint.id": "fake-1",
        "corewrite.checkpoint.digest": DIGEST,
    }
    assert parent_of(rewrite) == hexes(request)[1]
    phases = told.named("queue", "cache", "engine", "guard")
    assert [span.name for span in phases] == ["queue", "cache", "engine", "guard"]
    assert {parent_of(span) for span in phases} == {hexes(rewrite)[1]}
    assert {hexes(span)[0] for span in told.spans} == {TRACE}
    starts = [span.start_time for span in (request, rewrite, *phases)]
    assert starts == sorted(starts)
    assert all(span.end_time <= request.end_time for span in told.spans)


def test_the_word_for_no_rewrite_is_the_same_everywhere() -> None:
    told = Told(FakeEngine(completions=lambda _: []))
    with told.client() as client:
        answer = client.post("/v1/rewrite", json={"query": QUERY}, headers=SAMPLED)
        metrics = client.get("/metrics").text
    word = answer.json()["reason"]
    assert answer.headers["x-corewrite-reason"] == word
    assert f'reason="{word}"}} 1.0' in metrics
    for span in told.named("POST /v1/rewrite", "rewrite"):
        assert (span.attributes or {})["corewrite.reason"] == word


def test_a_cache_hit_has_no_engine() -> None:
    told = Told()
    with told.client() as client:
        client.post("/v1/rewrite", json={"query": QUERY})
        client.post("/v1/rewrite", json={"query": QUERY}, headers=SAMPLED)
    assert {span.name for span in told.spans} == {"POST /v1/rewrite", "rewrite", "queue", "cache"}


def test_stages_are_children_of_the_request() -> None:
    told = Told()
    with told.client() as client:
        answer = client.post(
            "/v1/signals", json={"query": QUERY, "candidates": CANDIDATES}, headers=SAMPLED
        ).json()
    (request,) = told.named("POST /v1/signals")
    stages = told.named("recall", "rawrank", "finerank")
    assert [span.name for span in stages] == ["recall", "rawrank", "finerank"]
    assert {parent_of(span) for span in stages} == {hexes(request)[1]}
    for span in stages:
        reason = answer["stages"][span.name]["reason"]
        assert dict(span.attributes or {}) == ({"corewrite.reason": reason} if reason else {})
    assert all(one.end_time <= other.start_time for one, other in pairwise(stages))


def test_a_batch_has_a_rewrite_for_each_item() -> None:
    told = Told()
    with told.client() as client:
        client.post(
            "/v1/rewrite/batch",
            json={"requests": [{"query": QUERY}, {"query": "rn"}, {"query": ""}]},
            headers=SAMPLED,
        )
    (request,) = told.named("POST /v1/rewrite/batch")
    assert (request.attributes or {})["corewrite.items"] == 3
    assert [parent_of(span) for span in told.named("rewrite")] == [hexes(request)[1]] * 2
    assert len(told.named("engine")) == 2


@pytest.mark.parametrize("mode", ["online", "nearline"])
def test_a_generation_that_nobody_waits_for_is_linked_and_no_child(mode: str) -> None:
    """Past its deadline, or queued: it has a trace of its own, which points to its query."""
    told = Told(FakeEngine(gate=asyncio.Event()))
    body = {"query": QUERY, "mode": mode, "deadline_ms": 30}
    with told.client() as client:
        answer = client.post("/v1/rewrite", json=body, headers=SAMPLED).json()
        assert answer["reason"] == ("deadline" if mode == "online" else "nearline")
        assert told.engine.gate is not None
        client.portal.call(told.engine.gate.set)  # type: ignore[union-attr]
        until_cached(client, QUERY)
    (rewrite,) = told.named("rewrite")
    (late,) = told.named("generate")
    assert late.parent is None
    assert hexes(late)[0] != TRACE
    (link,) = late.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == hexes(rewrite)
    assert (late.attributes or {})["corewrite.checkpoint.digest"] == DIGEST
    assert late.end_time > rewrite.end_time


@pytest.mark.parametrize(
    ("headers", "ratio", "sent"),
    [
        ({}, 0.0, False),
        ({}, 1.0, True),
        ({"traceparent": f"00-{TRACE}-{PARENT}-00"}, 1.0, False),
        ({"traceparent": "junk"}, 0.0, False),
        (SAMPLED, 0.0, True),
    ],
)
def test_the_callers_flag_decides(headers: dict[str, str], ratio: float, sent: bool) -> None:  # noqa: FBT001
    told = Told(traces_ratio=ratio)
    with told.client() as client:
        answer = client.post("/v1/rewrite", json={"query": QUERY}, headers=headers)
        client.get("/livez")
    assert answer.headers["traceparent"].endswith("-01" if sent else "-00")
    assert len(told.named("POST /v1/rewrite")) == sent
    assert not told.named("GET /livez")  # machines ask for it; no trace begins there


def test_who_fails_is_an_error_and_who_is_refused_is_not() -> None:
    told = Told(max_inflight=1, batch_concurrency=1)
    with told.client() as client:
        client.post("/v1/rewrite", json={"query": ""}, headers=SAMPLED)
        client.request("BREW", "/nowhere/to/be/found", headers=SAMPLED)
        told.engine.answers_with = "0" * 64  # it answers with weights that nobody has announced
        client.post("/v1/rewrite", json={"query": QUERY}, headers=SAMPLED)
    bad, unknown, degraded = [span for span in told.spans if span.kind is SpanKind.SERVER]
    assert (bad.attributes or {})["corewrite.error"] == "invalid_request"
    assert unknown.name == "_OTHER"
    assert (unknown.attributes or {})["http.response.status_code"] == 404
    assert (degraded.attributes or {})["corewrite.reason"] == "engine_error"
    assert {span.status.status_code for span in (bad, unknown, degraded)} == {StatusCode.UNSET}


def test_everything_declared_is_sent_and_nothing_else_and_never_a_query() -> None:
    told = Told(FakeEngine(gate=asyncio.Event()))
    with told.client() as client:
        late = client.post("/v1/rewrite", json={"query": QUERY, "deadline_ms": 30}, headers=SAMPLED).json()
        assert late["reason"] == "deadline"
        told.engine.completions = lambda query: [completion(query)]
        client.portal.call(told.engine.gate.set)  # type: ignore[union-attr]
        body = {"query": QUERY}
        until_cached(client, QUERY)
        client.post("/v1/rewrite/batch", json={"requests": [body]}, headers=SAMPLED)
        for query in (QUERY, "rn", "rn"):
            client.post(
                "/v1/signals",
                json={"query": query, "query_id": query, "candidates": CANDIDATES},
                headers=SAMPLED,
            )
        client.post("/v1/rewrite", json={"query": ""}, headers=SAMPLED)
        client.app.state.service._finish = None  # type: ignore[attr-defined]  # a mistake of ours
        assert client.post("/v1/rewrite", json=body, headers=SAMPLED).status_code == 500
    declared = {spec.name: spec for spec in SPANS}
    sent: dict[str, set[str]] = {name: set() for name in declared}
    for span in told.spans:
        spec = REQUEST if span.kind is SpanKind.SERVER else declared[span.name]
        assert span.kind is (SpanKind.SERVER if spec.kind == "server" else SpanKind.INTERNAL)
        sent[spec.name] |= set(span.attributes or {})
        told_of = json.dumps(dict(span.attributes or {})) + span.name
        assert QUERY not in told_of
        assert not re.search(r"\bnurse\b", told_of)
    assert sent == {name: set(spec.attributes) for name, spec in declared.items()}
    (failed,) = [span for span in told.spans if span.status.status_code is StatusCode.ERROR]
    assert (failed.attributes or {})["error.type"] == "500"
