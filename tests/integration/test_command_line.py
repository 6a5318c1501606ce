from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeCheckpoint, FakeEngine

from app import cli
from app.errors import CorewriteError, EngineUnavailableError
from app.http.server import run_server
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]


def corewrite(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_the_options() -> None:
    done = corewrite("serve", "--help")
    assert done.returncode == 0
    assert "--checkpoint" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("serve", "--checkpoint", "/nowhere"), {}, "/nowhere"),
        (("rewrite", "rn", "--checkpoint", "/nowhere"), {}, "/nowhere"),
        (("serve", "--port", "99999"), {}, "port"),
        (("serve",), {"REWRITE_PORT": "many"}, "port"),
        (("rewrite", " "), {}, "query"),
        (("rewrite", "rn", "--num-rewrites", "9"), {}, "num_rewrites"),
        (("rewrite", "rn", "--item-text", "x"), {}, "--item-title"),
        (("rewrite", "rn", "--locale", "none of these"), {}, "locale"),
        (("rewrite", b"\xff"), {}, "query"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: Any, environment: Any, said: str) -> None:
    done = corewrite(*arguments, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_an_engine_that_does_not_start_is_one_error_not_a_traceback(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(start_error=EngineUnavailableError("model.safetensors: truncated"))
    settings = Settings(port=0)
    app = create_app(settings, engine=engine, checkpoint=FakeCheckpoint())
    with pytest.raises(EngineUnavailableError, match="truncated"):
        run_server(app, settings)
    assert engine.closed == 1
    assert "Traceback" not in capsys.readouterr().err + caplog.text


def test_a_port_in_use_is_one_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(port=taken.getsockname()[1])
        app = create_app(settings, engine=FakeEngine(), checkpoint=FakeCheckpoint())
        with pytest.raises(CorewriteError, match="cannot listen"):
            run_server(app, settings)


def test_engine_and_checkpoint_must_agree() -> None:
    with pytest.raises(CorewriteError, match="other weights"):
        create_app(Settings(), engine=FakeEngine(weights_digest="0" * 64), checkpoint=FakeCheckpoint())


def test_rewrite_goes_the_services_way_without_http(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    arguments = ["in blue", "--item-title", "Acme shoe", "--previous", "shoes", "--num-rewrites", "2"]
    parsed = cli.parse(["rewrite", *arguments])
    answer = asyncio.run(
        cli.rewrite_once(Settings(deadline_ms=5000), parsed, engine=engine, checkpoint=FakeCheckpoint())
    )
    assert engine.asked[0].prompt == "<|item|>Acme shoe<|prev|>shoes<|query|>in blue<|rewrite|>"
    assert [rewrite["rank"] for rewrite in answer["rewrites"]] == [1, 2]
    json.dumps(answer)
    cli.show(answer)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "in blue"
    assert shown[1] == "  1  in blue jobs    confidence 0.90  logprob -0.50"
    cli.show({**answer, "rewrites": [], "reason": "no_change"})
    assert "no rewrite: no_change" in capsys.readouterr().out


def test_commands_of_other_distributions_are_loaded_when_named(tmp_path: Path) -> None:
    (tmp_path / "other_commands.py").write_text(
        "def add(subparsers):\n"
        "    parser = subparsers.add_parser('greet', help='say hello')\n"
        "    parser.set_defaults(run=lambda arguments: print('hello') or 3)\n"
    )
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[corewrite.commands]\ngreet = other_commands:add\nbroken = no_such_module:add\n"
    )
    path = {"PYTHONPATH": str(tmp_path)}
    greeted = corewrite("greet", **path)
    assert (greeted.returncode, greeted.stdout) == (3, "hello\n")
    assert "greet" in corewrite("--help", **path).stdout
    broken = corewrite("broken", **path)
    assert broken.returncode == 2
    assert broken.stderr.count("\n") == 1
    assert "no_such_module" in broken.stderr
