"""What a connection may do, tried on a real server: nothing of it may reach the other clients."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from fakes import FakeEngine
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HEAD = b"GET /livez HTTP/1.1\r\nhost: test\r\n"
POST = b"POST /v1/rewrite HTTP/1.1\r\nhost: test\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


def connect(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=20)


def exchange(url: str, parts: Iterable[bytes]) -> bytes:
    """All that the server says until it closes the connection."""
    received = b""
    with connect(url) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:  # it need not listen to the end; what it said before is kept by the kernel
            while True:
                try:
                    chunk = connection.recv(65536)
                except ConnectionError:
                    break
                if not chunk:
                    break
                received += chunk
    return received


def answers(received: bytes) -> list[tuple[int, dict[str, object]]]:
    """Status and body of each answer; every one has a length."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        found.append((int(head.split()[1]), json.loads(rest[:length])))
        received = rest[length:]
    return found


def count(url: str, cause: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = re.search(rf'corewrite_refused_connections_total{{cause="{cause}"}} (\S+)', text)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    ("parts", "status", "cause"),
    [
        ([HEAD, b"a: ", *[b"x" * 100_000] * 20], 431, "head_too_large"),
        ([HEAD, b"".join(b"a%d: b\r\n" % n for n in range(101)), b"\r\n"], 431, "head_too_large"),
        ([HEAD, *(b"a%d: b\r\n" % n for n in range(100_000))], 431, "head_too_large"),
        ([HEAD, b"a: " + b"x" * 40_000 + b"\r\n\r\n"], 431, "head_too_large"),
        ([b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: test\r\n\r\n"], 414, "url_too_long"),
        ([b"GET /", *[b"x" * 100_000] * 10], 414, "url_too_long"),
        ([b"NOT HTTP AT ALL\r\n\r\n"], 400, "malformed"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "malformed"),
        ([POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello"], 400, "malformed"),
        ([POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello"], 400, "malformed"),
        ([CHUNKED, b"zz\r\n"], 400, "malformed"),
        ([CHUNKED, b"0\r\na: ", *[b"x" * 100_000] * 20], 431, "head_too_large"),
        ([CHUNKED, b"0\r\n", *[b"a: b\r\n"] * 200], 431, "head_too_large"),
        (
            [CHUNKED, b"1;" + b"x" * 40_000 + b"\r\n{\r\n", *[b"1;" + b"x" * 9000 + b"\r\n \r\n"] * 20],
            431,
            "head_too_large",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_no_client_means_is_refused_and_the_next_one_is_served(
    serve: Callable[..., str], parts: list[bytes], status: int, cause: str
) -> None:
    url = serve()
    assert [(given, set(body)) for given, body in answers(exchange(url, parts))] == [
        (status, {"error", "detail"})
    ]
    assert count(url, cause) == 1
    assert httpx.post(f"{url}/v1/rewrite", json={"query": "rn icu"}).json()["reason"] is None


def test_what_is_large_but_allowed_passes(serve: Callable[..., str]) -> None:
    url = serve()
    body = json.dumps({"query": "rn icu", "context": {"last_item": {"title": "x", "text": "y" * 4000}}})
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body.encode())  # the worst framing there is
    headers = b"".join(b"a%d: %s\r\n" % (n, b"v" * 300) for n in range(90))
    request = POST + headers + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\nexpires: never\r\n\r\n"
    found = answers(exchange(url, [request * 3 + b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n"]))
    assert [status for status, _ in found] == [200] * 4


def test_headers_that_do_not_come_end_the_connection(serve: Callable[..., str]) -> None:
    url = serve(header_timeout_s=0.3)
    assert [status for status, _ in answers(exchange(url, [HEAD]))] == [408]
    assert exchange(url, []) == b""  # nobody waits for an answer to nothing
    assert exchange(url, [b"\r\n"]) == b""
    # The second request of a connection too, and blank lines before it.
    assert [status for status, _ in answers(exchange(url, [HEAD + b"\r\n" + HEAD]))] == [200, 408]
    assert count(url, "too_slow") == 4


def test_a_body_that_nobody_reads_does_not_hold_the_connection(serve: Callable[..., str]) -> None:
    url = serve(header_timeout_s=0.3)
    answered = exchange(url, [HEAD + b"content-length: 1000\r\n\r\n", b"x"])
    assert [status for status, _ in answers(answered)] == [200]


def test_slow_clients_do_not_keep_others_waiting(serve: Callable[..., str]) -> None:
    url = serve(header_timeout_s=60)
    slow = [connect(url) for _ in range(200)]
    try:
        for letter in (b"G", b"E", b"T"):
            for connection in slow:
                connection.sendall(letter)
            assert httpx.post(f"{url}/v1/rewrite", json={"query": "rn icu"}).json()["reason"] is None
    finally:
        for connection in slow:
            connection.close()


def test_one_connection_too_many_is_told_so_and_health_is_answered(serve: Callable[..., str]) -> None:
    url = serve(max_connections=3, header_timeout_s=60)
    held = [connect(url) for _ in range(3)]
    try:
        response = httpx.post(f"{url}/v1/rewrite", json={"query": "rn icu"})
        assert (response.status_code, response.json()["error"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
        for path in ("/livez", "/readyz"):
            assert httpx.get(f"{url}{path}").status_code == 200
        assert count(url, "too_many") == 1
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: httpx.post(f"{url}/v1/rewrite", json={"query": "rn icu"}).status_code == 200)


def test_far_too_many_are_cut_off(serve: Callable[..., str]) -> None:
    url = serve(max_connections=1, header_timeout_s=60)
    held = [connect(url) for _ in range(40)]
    try:
        wait_until(lambda: any(has_ended(connection) for connection in held))
        # Those beyond the limit that say nothing make room in a second, and not after `header_timeout_s`.
        wait_until(lambda: is_alive(url))
        assert not has_ended(held[0])
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: httpx.post(f"{url}/v1/rewrite", json={"query": "rn icu"}).status_code == 200)


def is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        return False


def has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)  # noqa: FBT003 -- it takes no keyword
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_requests_sent_ahead_are_bounded_and_those_taken_are_answered(serve: Callable[..., str]) -> None:
    url = serve()
    found = answers(exchange(url, [(HEAD + b"\r\n") * 10_000]))
    assert 1 <= len(found) < 10_000
    assert {status for status, _ in found} == {200}
    assert count(url, "pipelined") == 1


def test_garbage_behind_a_request_does_not_take_its_answer(serve: Callable[..., str]) -> None:
    body = json.dumps({"query": "rn icu"}).encode()
    request = POST + b"content-length: %d\r\n\r\n" % len(body) + body
    url = serve(FakeEngine(delay_s=0.1))
    found = answers(exchange(url, [request + b"\x00garbage\r\n\r\n", b"more of it"]))
    assert [(status, answer["original"]) for status, answer in found] == [(200, "rn icu")]


def test_a_client_that_does_not_read_is_cut_off(serve: Callable[..., str]) -> None:
    url = serve(send_timeout_s=0.3)
    with connect(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)  # noqa: FBT003 -- it takes no keyword

        def cut_off() -> bool:
            try:
                connection.send((b"GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n") * 20)
            except BlockingIOError:
                pass
            except ConnectionError:
                return True
            return count(url, "not_reading") == 1

        wait_until(cut_off)
    assert count(url, "not_reading") == 1


def test_an_upgrade_is_not_taken_and_the_request_is_answered(serve: Callable[..., str]) -> None:
    url = serve()
    body = json.dumps({"query": "rn icu"}).encode()
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    whole = POST + upgrade + b"content-length: %d\r\n\r\n" % len(body) + body
    chunked = POST + upgrade + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    websocket = HEAD + b"upgrade: websocket\r\nconnection: upgrade, close\r\n\r\n"
    found = answers(exchange(url, [whole, whole + chunked, websocket]))
    assert [status for status, _ in found] == [200] * 4
    assert [answer.get("original") for _, answer in found] == ["rn icu"] * 3 + [None]
    assert [status for status, _ in answers(exchange(url, [b"CONNECT test:80 HTTP/1.1\r\n\r\n"]))] == [400]


def test_addresses_that_a_client_claims_are_not_believed(
    serve: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    url = serve()
    refused = httpx.post(f"{url}/admin/checkpoints/activate", headers={"x-forwarded-for": "203.0.113.9"})
    assert refused.status_code == 401
    lines = [record.fields for record in caplog.records if record.getMessage().startswith("refused")]
    assert [line["client"] for line in lines] == ["127.0.0.1"]
