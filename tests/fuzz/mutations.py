"""Requests nobody has thought of: valid ones of schemathesis, changed as JSON, as bytes and as HTTP.

Each is a function of a seed and its number alone, so that one can be had again without those before it.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Literal

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

CORPUS_EXAMPLES = 25
TOKEN = "fuzz"  # noqa: S105 -- of a server that nobody else reaches
MAX_BYTES = 300_000

ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 4, 5, 1e308, -0.0, 2**53, 2**64, 10**400, 0.1),
    *("", " ", "a", "\x00", "\ud800", "\u202e", "\ufdfa" * 200, "<|query|>", "rn icu", "é" * 512, "x" * 5000),
    *([], {}, [[]], [{}] * 300, {"": ""}, {"query": "rn icu"}),
]
ODD_BYTES = [
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'"', b"\\u", b"\\ud800", b"NaN", b"1e999"),
    *(b"{" * 3000, b"[" * 3000, b"-", b"1" * 500, b"\r\n", b"\r\n\r\n", b",", b"}", b"\xef\xbb\xbf"),
]
ODD_HEADERS = [
    *(
        b"x-envoy-expected-rq-timeout-ms: 1",
        b"x-envoy-expected-rq-timeout-ms: -1\xb2",
        b"traceparent: 00-\xff",
    ),
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    *(
        b"x-corewrite-arm: canary",
        b"x-corewrite-arm: \xff",
        b"authorization: Bearer wrong",
        b"authorization:",
    ),
    *(b"authorization: Bearer " + TOKEN.encode(), b"accept-encoding: gzip", b"content-type: text/plain"),
    *(b"expect: 100-continue", b"upgrade: h2c\r\nconnection: upgrade", b"x: " + b"y" * 9000),
    *(b"x-forwarded-for: 203.0.113.9", b"cookie: a=b", b"range: bytes=0-"),
]
ODD_HTTP = [
    *(b"\r\n", b"\n", b" ", b"\x00", b":", b"HTTP/1.1", b"HTTP/9.9", b"transfer-encoding: chunked\r\n"),
    *(b"content-length: 0\r\n", b"content-length: 99999999999999999999\r\n", b"content-length: -1\r\n"),
    *(
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01",
        b"ffffffffffffffff\r\n",
    ),
    *(b"connection: upgrade\r\nupgrade: h2c\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"%", b"#", b"//", b"?"),
]


@dataclass(frozen=True, slots=True)
class Made:
    """A request on the wire. `raw`: its very HTTP was changed, so that any refusal may come, or nothing."""

    data: bytes
    method: str
    path: str
    kind: Literal["valid", "json", "bytes", "raw"]
    body: bytes = b""


Corpus = dict[str, list[tuple[str, str, bytes]]]
"""(method, path, body) of valid requests, by method and path."""


def corpus_of(document: dict[str, Any], number: int) -> Corpus:
    """Some for each operation of an OpenAPI document; the same for the same seed."""
    found: Corpus = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()

        @seed(number)
        @settings(
            max_examples=CORPUS_EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def collect(case: Any) -> None:
            body = b"" if not isinstance(case.body, dict) else json.dumps(case.body).encode()
            found.setdefault(f"{case.method} {case.path}", []).append((case.method, case.path, body))

        collect()
    return found


def make(corpus: Corpus, number: int, index: int) -> Made:
    """The request of this number of this seed."""
    rng = random.Random(f"{number}:{index}")
    method, path, body = rng.choice(corpus[rng.choices(sorted(corpus), weights=_weights(corpus))[0]])
    kind: Literal["valid", "json", "bytes", "raw"] = rng.choices(
        ("valid", "json", "bytes", "raw"), weights=(10, 45, 35, 10)
    )[0]
    if kind == "json" and body:
        value = json.loads(body)
        for _ in range(rng.randint(1, 3)):
            value = _changed(value, rng)
        body = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    elif kind == "bytes":
        body = spoil(body, rng, ODD_BYTES)
    if rng.random() < 0.05:
        method = rng.choice(("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "POST", "TRACE"))
    if rng.random() < 0.05:
        path += rng.choice(("/", "?a=b", "/../admin", "%2e%2e", "%ff", "//", "#x", "a" * 9000))
    headers = rng.sample(ODD_HEADERS, rng.randint(0, 2))
    if rng.random() < 0.8:
        headers.append(b"authorization: Bearer " + TOKEN.encode())
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: fuzz", b"content-length: %d" % len(body), *headers]
    data = b"\r\n".join((*lines, b"", body))
    if kind == "raw":
        data = spoil(data, rng, ODD_HTTP)
    route = path.partition("?")[0].partition("#")[0]
    return Made(data[:MAX_BYTES] if kind == "raw" else data, method, route, kind, body)


def _weights(corpus: Corpus) -> list[int]:
    """What searches and pages call, ten times as often as the rest."""
    return [1 if "admin" in path or "GET" in path else 10 for path in sorted(corpus)]


def spoil(data: bytes, rng: random.Random, words: list[bytes]) -> bytes:
    """A few bytes changed, taken out, doubled, or words put in."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(made))
        match rng.randrange(5):
            case 0 if made:
                made[place % len(made)] ^= 1 << rng.randrange(8)
            case 1:
                del made[place : place + rng.randint(1, 8)]
            case 2:
                made[place:place] = made[place : place + rng.randint(1, 64)]
            case 3:
                made[place:place] = rng.randbytes(rng.randint(1, 8))
            case _:
                made[place:place] = rng.choice(words)
    return bytes(made)


def _changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with something of it replaced, renamed, taken out or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        made = dict(value)
        match rng.randrange(5):
            case 0:
                del made[name]
            case 1:
                made[rng.choice((name + "x", "", "query", "\ud800", "__proto__"))] = made[name]
            case 2:
                made[name] = rng.choice(ODD_VALUES)
            case _:
                made[name] = _changed(made[name], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        match rng.randrange(3):
            case 0:
                return value * rng.choice((0, 2, 3))
            case 1:
                return [*value[:place], rng.choice(ODD_VALUES), *value[place + 1 :]]
            case _:
                return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.5:
        place = rng.randrange(len(value))
        return (
            value[:place]
            + rng.choice(("\x00", "<|rewrite|>", "\ud800", "\u200b", "x" * 600, '"'))
            + value[place:]
        )
    return rng.choice(ODD_VALUES)
