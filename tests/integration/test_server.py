from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from waiting import wait_until

if TYPE_CHECKING:
    from fakes import FakeEngine

VALID = json.dumps({"query": "rn icu nights"}).encode()


def raw(url: str, data: bytes, *, wait_s: float = 5) -> bytes:
    """Send bytes, read until the peer stops or `wait_s` seconds pass."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    with socket.create_connection((host, port), timeout=wait_s) as connection:
        connection.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received or b"}" not in received.split(b"\r\n\r\n", 1)[1]:
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
        return received


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [
        "POST /v1/rewrite HTTP/1.1",
        "host: test",
        f"content-length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_query_is_rewritten_over_http(http: httpx.Client) -> None:
    response = http.post("/v1/rewrite", content=VALID)
    assert response.status_code == 200
    assert response.json()["original"] == "rn icu nights"
    assert response.json()["rewrites"][0]["text"] == "rn icu nights jobs"


def test_a_100_kb_query_names_the_field_and_a_300_kb_body_is_too_large(http: httpx.Client) -> None:
    response = http.post("/v1/rewrite", json={"query": "x" * 100_000})
    assert (response.status_code, response.json()["error"]) == (422, "invalid_request")
    assert response.json()["detail"].startswith("query: ")
    response = http.post("/v1/rewrite", json={"query": "x" * 300_000})
    assert (response.status_code, response.json()["error"]) == (413, "body_too_large")
    assert http.post("/v1/rewrite", content=VALID).status_code == 200


def test_a_body_that_never_comes_is_given_up(url: str, http: httpx.Client) -> None:
    answer = raw(url, post(VALID[:5], length=len(VALID)))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"body_timeout"' in answer
    assert http.get("/livez").status_code == 200


def test_malformed_http_is_400_and_the_server_lives(url: str, http: httpx.Client) -> None:
    assert raw(url, b"NOT HTTP AT ALL\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert http.get("/livez").status_code == 200


def test_odd_header_values_do_no_harm(url: str) -> None:
    answer = raw(url, post(VALID, "x-envoy-expected-rq-timeout-ms: \xb2", "traceparent: \xff\xfe"))
    assert answer.startswith(b"HTTP/1.1 200")


def test_clients_that_hang_up_leave_nothing_behind(
    url: str, http: httpx.Client, served_engine: FakeEngine
) -> None:
    served_engine.delay_s = 0.2
    try:
        for n in range(20):
            host, port = urlsplit(url).hostname, urlsplit(url).port
            with socket.create_connection((host, port)) as connection:
                connection.sendall(post(json.dumps({"query": f"gone {n:b}"}).encode()))
    finally:
        served_engine.delay_s = 0.0
    wait_until(lambda: 'corewrite_inflight_requests{gate="rewrite"} 0.0' in http.get("/metrics").text)
    response = http.post("/v1/rewrite", json={"query": "gone 101"})
    assert response.json()["reason"] is None


def test_many_clients_at_once_all_get_their_own_answer(url: str) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:

            async def one(n: int) -> None:
                query = f"query {n % 20:b} end"
                answer = (await client.post("/v1/rewrite", json={"query": query})).json()
                assert answer["original"] == query
                assert answer["rewrites"][0]["text"] == f"{query} jobs"

            await asyncio.gather(*(one(n) for n in range(100)))

    asyncio.run(scenario())


def test_a_client_that_leaves_in_mid_body_is_nobodys_failure(url: str, http: httpx.Client) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    invalid = 'corewrite_requests_total{outcome="invalid",reason="none"}'

    def refused() -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(invalid))

    before = refused()
    with socket.create_connection((host, port)) as connection:
        connection.sendall(post(VALID[:5], length=len(VALID)))
    wait_until(lambda: refused() == before + 1, within_s=0.4)
    assert 'outcome="failed"' not in http.get("/metrics").text
