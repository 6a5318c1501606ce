from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from app.logs import JsonFormatter
from app.telemetry import LOG_FIELDS, LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes import FakeEngine
    from fastapi import FastAPI

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Lines(logging.Handler):
    """Formats inside the request, as a real handler does, and keeps the lines."""

    def __init__(self, *, messages: bool) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonFormatter(messages=messages))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler = Lines(messages=False)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    yield handler.lines
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)


def test_every_line_is_json_with_known_fields_and_no_query(
    make_app: Callable[..., FastAPI], engine: FakeEngine, lines: list[str]
) -> None:
    engine.error = RuntimeError("could not read 'secret query'")
    with TestClient(make_app(), raise_server_exceptions=False) as client:
        client.post("/v1/rewrite", json={"query": "secret query", "client_id": "secret client"})
        client.post("/v1/rewrite", json={"query": "secret query", "deadline_ms": 0})
        client.post("/v1/rewrite/batch", json={"requests": [{"query": "secret query"}, {}]})
        client.get("/livez?query=secret")
        client.get("/nothing/here")
    parsed = [json.loads(line) for line in lines]
    assert not [line for line in lines if "secret" in line]
    assert {field for line in parsed for field in line} <= set(LOG_FIELDS)
    failed = next(line for line in parsed if line["event"] == "generation failed")
    assert failed["exception"] == "RuntimeError"
    assert failed["frames"][-1].startswith("fakes.py:")
    requests = [line for line in parsed if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 422, 200, 200, 404]
    assert requests[0]["query_chars"] == len("secret query")
    assert len(requests[0]["query_hash"]) == 12
    assert requests[0]["reason"] == "engine_error"
    assert requests[2]["reasons"] == {"engine_error": 1, "invalid_request": 1}
    assert requests[3]["level"] == "debug"


def test_raw_queries_and_messages_only_where_allowed(
    make_app: Callable[..., FastAPI], lines: list[str]
) -> None:
    with TestClient(make_app(log_queries=True)) as client:
        client.post("/v1/rewrite", json={"query": "plain query"})
    assert json.loads(lines[-2])["query"] == "plain query"
    error = ValueError("plain query")
    record = LOGGER.makeRecord("corewrite", 40, "f", 1, "x", (), (ValueError, error, None))
    assert json.loads(JsonFormatter(messages=True).format(record))["exception"] == "ValueError: plain query"


def test_a_key_changes_the_hash(make_app: Callable[..., FastAPI], lines: list[str]) -> None:
    for key in (None, "one", "two"):
        with TestClient(make_app(log_hash_key=key)) as client:
            client.post("/v1/rewrite", json={"query": "rn"})
    hashes = [line["query_hash"] for line in map(json.loads, lines) if "query_hash" in line]
    assert len(set(hashes)) == 3


def test_the_trace_goes_through_answer_and_log(make_app: Callable[..., FastAPI], lines: list[str]) -> None:
    with TestClient(make_app()) as client:
        header = f"00-{TRACE}-00f067aa0ba902b7-01"
        response = client.post("/v1/rewrite", json={"query": "rn"}, headers={"traceparent": header})
        version, trace_id, span_id, flags = response.headers["traceparent"].split("-")
        assert (version, trace_id, flags) == ("00", TRACE, "01")
        assert span_id != "00f067aa0ba902b7"
        line = json.loads(next(line for line in lines if '"request"' in line))
        assert (line["trace_id"], line["span_id"]) == (trace_id, span_id)

        other = client.post("/v1/rewrite", json={"query": "rn"}, headers={"traceparent": "00-junk"})
        assert TRACE not in other.headers["traceparent"]
        assert 'corewrite_ignored_headers_total{header="traceparent"} 1.0' in client.get("/metrics").text
        error = client.get("/nothing", headers={"traceparent": header})
        assert TRACE in error.headers["traceparent"]
