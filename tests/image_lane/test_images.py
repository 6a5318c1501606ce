"""The images of the Dockerfile, built by its lines, and run as a careful cluster would: see containers.py."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import REPOSITORY, Builder, Image

PORT = 18199
PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Image:
    builder = Builder(tmp_path_factory.mktemp("images"))
    builder.base()
    return builder.build("serve")


@pytest.fixture
def running(serve: Image, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with serve.running(tmp_path / "log", REWRITE_PORT=PORT) as process:
        end = time.monotonic() + PATIENCE_S
        while status(serve, "corewrite", "probe", REWRITE_PORT=PORT) != 0:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
        yield process


def status(image: Image, *words: str, **settings: object) -> int:
    return subprocess.run(image.command(*words, **settings), capture_output=True, check=False).returncode


@pytest.mark.usefixtures("running")
def test_it_answers_from_a_root_that_is_read_only() -> None:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/rewrite",
        json.dumps({"query": "rn icu nights", "deadline_ms": 500}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 -- our own
        told = json.loads(answer.read())
    assert told["original"] == "rn icu nights"
    assert told["checkpoint"]["id"] == "default"


def test_a_stop_signal_ends_it_well(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=PATIENCE_S) == 0


def test_the_probe_says_when_nobody_is_there(serve: Image) -> None:
    assert status(serve, "corewrite", "probe", REWRITE_PORT=1) == 1


def test_nobody_inside_is_root_or_writes_to_it(serve: Image) -> None:
    assert serve.config["User"] == "10001:10001"
    write = "import pathlib; pathlib.Path('/opt/corewrite/x').touch()"
    assert status(serve, "python", "-c", write) != 0
    assert status(serve, "python", "-c", write.replace("/opt/corewrite", "/tmp")) == 0  # noqa: S108


def test_it_says_what_it_is_made_of(serve: Image) -> None:
    listed = serve.root / serve.config["Labels"]["io.corewrite.sbom"].lstrip("/")
    parts = {part["name"].lower(): part["version"] for part in json.loads(listed.read_text())["components"]}
    locked = dict(
        line.lower().split("==")
        for line in (REPOSITORY / "requirements.lock").read_text().split()
        if "==" in line
    )
    inside = {name: version for name, version in parts.items() if name in locked}
    assert inside == {name: locked[name] for name in inside}
    assert {"fastapi", "onnxruntime", "redis", "sqlalchemy"} <= set(inside)


def test_neither_torch_nor_pip_is_inside(serve: Image) -> None:
    for module in ("torch", "pip", "transformers", "pytest"):
        assert status(serve, "python", "-c", f"import {module}") == 1


def test_it_says_how_it_is_asked_for_its_health(serve: Image) -> None:
    assert serve.config["Healthcheck"]["Test"] == ["CMD", "corewrite", "probe"]
