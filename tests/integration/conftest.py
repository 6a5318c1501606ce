"""A real server on a free port: in a thread for speed, in a process of its own for signals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fakes import FakeCheckpoint, FakeEngine
from ports import free_port
from pydantic import SecretStr
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
    with running(settings, served_engine) as server:
        yield server


@contextmanager
def running(settings: Settings, engine: FakeEngine) -> Iterator[DrainingServer]:
    """A server in a thread of its own."""
    server = make_server(create_app(settings, engine=engine, checkpoint=FakeCheckpoint()), settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start servers over a fake engine with settings; each call returns a URL."""
    with ExitStack() as stack:

        def start(engine: FakeEngine | None = None, **options: object) -> str:
            settings = Settings(**{"port": 0, "relevance": "none", **options})
            return url_of(stack.enter_context(running(settings, engine or FakeEngine())))

        yield start


@pytest.fixture(scope="module")
def url(server: DrainingServer) -> str:
    return url_of(server)


def url_of(server: DrainingServer) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def url_with_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that has rollouts, and whose administrators have a token."""
    folder = tmp_path_factory.mktemp("rollouts")
    settings = Settings(
        port=0,
        body_timeout_s=2,
        relevance="none",
        rollouts=SecretStr(f"sqlite:///{folder}/rollouts.db"),
        registry=str(folder / "registry"),
        admin_token=SecretStr("secret"),
        rollout_flush_s=0.02,
    )
    with running(settings, FakeEngine()) as server:
        yield url_of(server)


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
