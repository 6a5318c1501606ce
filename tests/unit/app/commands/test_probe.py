"""`corewrite probe`: what a container without a shell is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.cli import main


class Service(BaseHTTPRequestHandler):
    """Lives, and is not ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()
        self.wfile.write(b'{"status": "told"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port)
        server.shutdown()
        thread.join()


def test_ready_or_only_alive(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--port", port]) == 1
    assert main(["probe", "--port", port, "--live"]) == 0
    assert main(["probe", "--port", port, "--live", "--host", "0.0.0.0"]) == 0  # noqa: S104 -- asked on loopback
    assert capsys.readouterr().out == '{"status": "told"}\n' * 3


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--port", "1"]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
