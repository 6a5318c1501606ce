"""Traces over OTLP: to a collector that reads them, and to ones that do not answer or are not there."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fakes import FakeCheckpoint, FakeEngine
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ports import free_port
from pydantic import ValidationError
from starlette.testclient import TestClient
from waiting import wait_until

from app.main import create_app
from app.settings import Settings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector(HTTPServer):
    """Keeps what it is sent; answers 503 as long as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Intake)
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Intake(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.status < 300:
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def served(url: str) -> Iterator[TestClient]:
    app = create_app(Settings(traces=url), engine=FakeEngine(), checkpoint=FakeCheckpoint())
    with TestClient(app) as client:
        yield client


def count(client: TestClient, result: str) -> float:
    name = f'corewrite_spans_total{{result="{result}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_a_collector_reads_what_is_sent(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    with served(collector.url) as client:
        answer = client.post("/v1/rewrite", json={"query": "rn icu"}, headers=SAMPLED)
    ((path, request),) = collector.requests
    assert path == "/v1/traces"
    assert collector.headers[0]["x-tenant"] == "search"
    ((resource,),) = [request.resource_spans]
    told = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (told["service.name"], told["deployment.environment"]) == ("corewrite", "test")
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"POST /v1/rewrite", "rewrite", "queue", "cache", "engine", "guard"}
    own = spans["POST /v1/rewrite"]
    assert (own.trace_id.hex(), own.parent_span_id.hex()) == (TRACE, PARENT)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{own.span_id.hex()}-01"
    assert spans["rewrite"].parent_span_id == own.span_id


def test_what_is_lost_is_counted_and_said_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that refuses, and comes back."""
    caplog.set_level(logging.INFO, "corewrite")
    collector.status = 400  # which is not tried again
    with served(collector.url) as client:
        for _ in range(200):
            assert client.post("/v1/rewrite", json={"query": "rn icu"}, headers=SAMPLED).status_code == 200
        wait_until(lambda: count(client, "failed") > 0)
        collector.status = 200
        for _ in range(200):
            client.post("/v1/rewrite", json={"query": "rn icu"}, headers=SAMPLED)
        wait_until(lambda: count(client, "exported") > 0)
    said = [record.message for record in caplog.records]
    assert said.count("spans are lost: the collector does not take them") == 1
    assert said.count("the collector takes spans again") == 1
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_nothing_is_sent_where_only_the_environment_of_all_says_so(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI's own telemetry would send what clients have written, messages of errors too."""
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    app = create_app(Settings(), engine=FakeEngine(), checkpoint=FakeCheckpoint())
    with TestClient(app) as client:
        client.post("/v1/rewrite", json={"query": "rn icu"}, headers=SAMPLED)
        client.post("/v1/rewrite", json={"query": ""}, headers=SAMPLED)
    assert collector.requests == []


@contextmanager
def silent() -> Iterator[str]:
    """It takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def absent() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("collector_of", [silent, absent])
def test_a_dead_collector_costs_spans_and_no_request(
    collector_of: Callable[[], Iterator[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More spans than the queue holds, nobody takes one; each request is answered, and it stops."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    with collector_of() as url, served(url) as client:
        for number in range(100):
            answer = client.post("/v1/rewrite", json={"query": f"rn {number}"}, headers=SAMPLED)
            assert answer.json()["reason"] is None
        assert count(client, "recorded") >= 500
        assert count(client, "exported") == 0


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "http://", ""])
def test_where_spans_go_is_a_url(url: str) -> None:
    with pytest.raises(ValidationError, match="URL of a collector"):
        Settings(traces=url)


def test_a_path_of_ones_own_is_kept() -> None:
    assert Settings(traces="https://c.example/v1/traces").traces == "https://c.example/v1/traces"
    assert Settings(traces="https://c.example/tenant/otlp").traces == "https://c.example/tenant/otlp"
    assert Settings(traces="http://c:4318/").traces == "http://c:4318/v1/traces"
