"""No secret is ever told: real processes with a marker in every secret setting, made to fail in every way.

The settings are asked which of them are secrets, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from ports import free_port
from pydantic import SecretStr, ValidationError
from waiting import wait_until

from app.engines.breaker import Breaker
from app.errors import CorewriteError
from app.rewrite.shared_cache import SharedCache
from app.rollout.database import Database
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
MARK = "S3CRET"
FIELDS = Settings.model_fields
SECRETS = [name for name, field in FIELDS.items() if "SecretStr" in str(field.annotation)]
PLAIN_URLS = [
    name
    for name, field in FIELDS.items()
    if "SecretStr" not in str(field.annotation)
    and "URL" in (field.description or "").split(".")[0].split(":")[0]
    and "Bytes" not in (field.description or "")
]
SHAPES = {
    "rollouts": "postgresql+psycopg://user:{}@127.0.0.1:1/x",
    "redis_url": "redis://user:{}@127.0.0.1:1/0",
}
VALUES = {name: SHAPES.get(name, "{}").format(f"{MARK}-{name}") for name in SECRETS}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("REWRITE_")}
    asked = {**VALUES, "relevance": "none", "port": "0", **settings}
    return {
        **own,
        "PYTHONPATH": str(ROOT),
        **{f"REWRITE_{name.upper()}": value for name, value in asked.items()},
    }


def command(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        env=environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_settings_that_are_asked_for_are_there() -> None:
    assert {"admin_token", "events_token", "exposure_key", "rollouts", "redis_url"} <= set(SECRETS)
    assert {"registry", "openai_url", "relevance_url", "traces"} == set(PLAIN_URLS)
    assert all(isinstance(getattr(Settings(**VALUES), name), SecretStr) for name in SECRETS)


@pytest.mark.parametrize("name", PLAIN_URLS)
def test_a_url_that_is_shown_may_hold_no_password(name: str) -> None:
    with pytest.raises(ValidationError, match="password") as refused:
        Settings(**{name: f"https://user:{MARK}@example.org/x"})
    assert MARK not in str(refused.value)
    assert MARK not in repr(refused.value)


@pytest.mark.parametrize("told", ["false", "true"], ids=["queries_not_logged", "queries_logged"])
def test_a_server_that_everything_goes_wrong_with_tells_none(told: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {"port": str(port), "log_queries": told, "log_level": "debug", "registry": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"],
            env=environment(settings),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    told_clients: list[str] = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def alive() -> bool:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                try:
                    return client.get("/livez").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(alive, within_s=60)
            right = {"authorization": f"Bearer {VALUES['admin_token']}"}
            wrong = {"authorization": f"Bearer {MARK}-of-a-client"}
            query = {"query": "registerd nurse", "query_id": "q"}
            for headers in ({}, wrong, right):
                for method, path, body in (
                    ("POST", "/v1/rewrite", query),
                    ("POST", "/v1/rewrite", {"query": 1}),
                    ("POST", "/v1/signals", query),
                    ("POST", "/v1/events", {"events": [{"query_id": "q", "action_name": "click"}]}),
                    ("POST", "/admin/checkpoints/activate", {"id": "nothing"}),
                    ("POST", "/v1/admin/kill", {"who": "x", "why": "y"}),
                    ("GET", "/v1/admin/rollout", None),
                    ("GET", "/nothing", None),
                    ("GET", "/metrics", None),
                    ("GET", "/readyz", None),
                    ("GET", "/openapi.json", None),
                    ("GET", "/docs", None),
                ):
                    for arm in ({}, {"x-corewrite-arm": "canary"}):
                        answer = client.request(method, path, json=body, headers={**headers, **arm})
                        told_clients += [str(answer.headers), answer.text]
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(b"\x00" + VALUES["admin_token"].encode() + b"\r\n\r\n")
                told_clients.append(connection.recv(65536).decode())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    text = log.read_text(encoding="utf-8")
    assert '"event": "ready"' in text
    assert '"shared cache failed"' in text
    assert MARK not in text
    assert not [answer for answer in told_clients if MARK in answer]


HALVES = ("a/{}", "a@{}", "a:{}", "a#{}", "a?{}=1", "a%zz{}", "[{}")
URLS = [
    f"{scheme}://user:{half.format(MARK)}{end}"
    for scheme in ("postgresql+psycopg", "postgresql+nothing", "redis", "nothing", "sqlite")
    for half in HALVES
    for end in ("@127.0.0.1:1/x", "@[::1", ":1@x:x/x")
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_that_breaks_its_url_is_not_told(url: str) -> None:
    for use in (open_database, open_cache):
        try:
            use(url)
        except CorewriteError as error:
            told = [f"{link} {link!r}" for link in (error, error.__cause__) if link is not None]
            assert not [text for text in told if MARK in text]


def open_database(url: str) -> None:
    database = Database(url)
    try:
        database.now()
    finally:
        database.close()


def open_cache(url: str) -> None:
    async def scenario() -> None:
        breaker = Breaker(max_failures=5, open_s=5)
        cache = SharedCache(
            url, ttl_s=1, timeout_s=5, scope="", breaker=breaker, on_result=lambda _result: None
        )
        try:
            await cache.check()
        finally:
            await cache.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "openai", "openai_url": "http://127.0.0.1:1"},
        {"engine": "openai", "openai_url": "http://127.0.0.1:1", "openai_api_key": f"{MARK}\x0b{MARK}"},
        {"relevance": "remote", "relevance_url": "http://127.0.0.1:1", "relevance_api_key": f"\x0b{MARK}"},
        {"deadlne_ms": "1"},
        {"deadline_ms": MARK},
        {"vllm_arguments": MARK},
        {"max_inflight": "1"},
        {"checkpoint": "/nowhere"},
        {"signers": "/nowhere"},
        {"registry": f"s3://user:{MARK}@bucket/x"},
        {"host": "192.0.2.1"},
        {"redis_url": MARK},
        {"rollouts": MARK},
        {"admin_token": f"\x0b{MARK}\u20ac"},
    ],
    ids="-".join,
)
def test_a_start_that_fails_says_why_and_tells_none(settings: dict[str, str]) -> None:
    ended = command("serve", **settings)
    assert ended.returncode != 0
    assert (ended.stdout + ended.stderr).strip()
    assert MARK not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--help"], {}),
        (["serve", "--help"], {}),
        (["serve", "--port", "x"], {}),
        (["rollout", "status"], {}),
        (["rollout", "status"], {"deadlne_ms": "1"}),
        (["checkpoints", "list"], {}),
        (["checkpoints", "list"], {"deadlne_ms": "1"}),
        (["checkpoints", "activate", "x", "--url", "http://127.0.0.1:1"], {}),
        (["control"], {"rollouts": f"sqlite:////nowhere/{MARK}"}),
        (["probe"], {}),
        (["rewrite", "registerd nurse"], {}),
    ],
    ids=str,
)
def test_no_command_tells_any(words: list[str], settings: dict[str, str], tmp_path: Path) -> None:
    ended = command(*words, **{"registry": str(tmp_path), **settings})
    assert MARK not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
