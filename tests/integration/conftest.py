"""A real server on a free port: in a thread for speed, in a process of its own for signals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fakes import FakeCheckpoint, FakeEngine
from ports import free_port
from waiting import wait_until

from app.http.server import DrainingServer, make_server
from app.main import create_app
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def served_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def server(served_engine: FakeEngine) -> Iterator[DrainingServer]:
    settings = Settings(port=0, body_timeout_s=2, deadline_ms=5000, relevance="none")
    app = create_app(settings, engine=served_engine, checkpoint=FakeCheckpoint())
    server = make_server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def url(server: DrainingServer) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def start_process() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start `served.py` with settings; returns the process and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(**settings: object) -> tuple[subprocess.Popen[str], str]:
        port = free_port()
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE.parent}"}
        environment |= {
            f"REWRITE_{name.upper()}": str(value) for name, value in {"port": port, **settings}.items()
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / "served.py")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None, process.communicate()[0]
            try:
                return httpx.get(f"{url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready)
        return process, url

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
