"""Warming on a real Ray cluster of two workers, with the checkpoint of the package and a real Redis.

In a process of its own, as the command runs, which can be told from others by its environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis_server import RedisServer, running_redis
from starlette.testclient import TestClient
from waiting import wait_until

from app.main import create_app
from app.rewrite.shared_cache import PREFIX
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TITLES = [f"{level} {job}" for level in ("sr", "jr", "lead", "asst", "") for job in (
    "rn", "sw engr", "line cook", "cdl driver", "acct mgr", "welder 2nd shift", "hr generalist", "barista",
)]  # fmt: skip
TITLES.append("nurse\u2028manager")  # a line break to Python, not to JSON
PATIENCE_S = 240


class Run:
    """`corewrite warm` as a process; every process that comes of it carries a mark in its environment."""

    def __init__(self, redis: RedisServer, *arguments: str, queries: list[str], **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        file = redis.folder / f"{self.mark}.txt"
        file.write_text("\n".join(queries))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "warm", "--queries", str(file), "--json", *arguments],
            cwd=ROOT,
            env={**os.environ, "REWRITE_REDIS_URL": redis.url, "MARK": self.mark, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has them, and all they start, ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def end(self) -> tuple[int, str, str]:
        """Status, output and errors of a run that has ended; nothing of it is left."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        wait_until(lambda: not self.alive(), within_s=30)
        return self.process.returncode, out, err

    def alive(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found


def entries(redis: RedisServer) -> dict[bytes, bytes]:
    """What is stored, byte for byte."""
    names = [name for name in redis.stored() if name != f"{PREFIX}check".encode()]
    return {name: redis.ask("GET", name) for name in names}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def test_two_workers_store_what_one_process_stores_and_a_replica_finds_it(redis: RedisServer) -> None:
    here = Run(redis, "--threads", "1", queries=TITLES)
    status, _, err = here.end()
    assert status == 0, err
    local = entries(redis)
    assert len(local) == len(TITLES)
    redis.ask("FLUSHALL")

    status, out, err = Run(redis, "--engine", "ray", "--workers", "2", queries=TITLES).end()
    assert status == 0, err
    summary = json.loads(out)
    assert (summary["distinct"], summary["generated"]) == (len(TITLES), len(TITLES))
    assert [line for line in err.splitlines() if not line.startswith("warm: ")] == []  # Ray says nothing
    assert entries(redis) == local

    app = create_app(Settings(redis_url=redis.url, redis_timeout_ms=5000, deadline_ms=5000, engine_threads=1))
    with TestClient(app) as client:
        answers: list[dict[str, Any]] = [
            client.post("/v1/rewrite", json={"query": query.strip()}).json() for query in TITLES
        ]
    assert {answer["cache"] for answer in answers} == {"hit"}


def test_a_failure_is_one_line_and_leaves_no_process(redis: RedisServer) -> None:
    """The driver may not know what an actor finds out: here that there is no engine."""
    nobody = {"REWRITE_ENGINE": "openai", "REWRITE_OPENAI_URL": "http://127.0.0.1:1"}
    status, out, err = Run(redis, "--engine", "ray", queries=TITLES, **nobody).end()
    assert (status, out) == (2, "")
    assert "http://127.0.0.1:1" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_ended_it_leaves_no_process_and_what_is_done(redis: RedisServer, ended_by: signal.Signals) -> None:
    redis.ask("FLUSHALL")
    many = [f"{title} {number}" for number in range(100) for title in TITLES]
    run = Run(redis, "--engine", "ray", queries=many)
    # Names alone: to read what is stored takes longer than the run on a busy machine.
    wait_until(lambda: len(redis.stored()) > 2 or run.process.poll() is not None, within_s=PATIENCE_S)
    run.process.send_signal(ended_by)
    status, _, err = run.end()
    assert status == (130 if ended_by == signal.SIGINT else -ended_by), err
    assert "Traceback" not in err
    assert len(entries(redis)) > 1
