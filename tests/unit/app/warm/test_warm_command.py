from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from redis_server import running_redis

from app import cli
from app.commands import warm as warm_command
from app.warm.queries import read_head
from app.warm.worker import Outcome

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE_REDIS_URL", raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--queries", "{file}"), "REWRITE_REDIS_URL"),
        (("--queries", "/nowhere"), "/nowhere: No such file"),
        (("--queries", "/"), "directory"),
        (("--queries", "{file}", "--workers", "2"), "--engine ray"),
        (("--queries", "{file}", "--ray-address", "auto"), "--engine ray"),
        (("--queries", "{file}", "--engine", "ray", "--workers", "0"), "--workers"),
        (("--queries", "{file}", "--concurrency", "0"), "--concurrency"),
        (("--queries", "{file}", "--engine", "ray"), "REWRITE_REDIS_URL"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    file = tmp_path / "head.txt"
    file.write_text("rn\n")
    assert cli.main(["warm", *(argument.format(file=file) for argument in arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_strict_does_nothing_where_a_line_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "head.jsonl"
    file.write_text('{"query": "rn"}\n{"query": 7}\n')
    assert cli.main(["warm", "--queries", str(file), "--strict"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "warm: line 2: query: Input should be a valid string"
    assert "1 of 2 lines" in told[1]


def test_the_summary_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    head = read_head([b"%d" % number for number in range(1200)] + [b"\x00"], on_invalid=lambda *_: None)
    tally = Counter(
        {
            Outcome("already_there"): 1000,
            Outcome("generated"): 150,
            Outcome("generated", "no_change"): 20,
            Outcome("generated", "guard"): 10,
            Outcome("too_long"): 5,
            Outcome("failed", "engine_error"): 14,
            Outcome("failed", "not_stored"): 1,
        }
    )
    summary = warm_command.summarise(head, tally, 10.0)
    assert summary == {
        "lines": 1201,
        "invalid": 1,
        "distinct": 1200,
        "already_there": 1000,
        "generated": 180,
        "without_rewrite": {"guard": 10, "no_change": 20},
        "too_long": 5,
        "failed": {"engine_error": 14, "not_stored": 1},
        "seconds": 10.0,
        "queries_per_s": 120.0,
    }
    warm_command._show(summary, as_json=True)
    assert json.loads(capsys.readouterr().out) == summary
    warm_command._show(summary, as_json=False)
    table = capsys.readouterr().out.splitlines()
    assert table[3] == "already there    1,000"
    assert table[7] == "failed           engine_error 14, not_stored 1"


def test_the_command_with_the_checkpoint_of_the_package() -> None:
    """The whole of it, from standard input; a bad line and an engine that fails show in status and counts."""
    lines = b'rn\n{"query": "rn", "locale": "en"}\n{"quest\nlvn\n'
    with running_redis() as server:
        command = [sys.executable, "-m", "app.cli", "warm", "--queries", "-", "--json", "--threads", "1"]
        first, again = (
            subprocess.run(
                command,
                input=lines,
                capture_output=True,
                env=environment(server.url),
                cwd=cli.__file__.removesuffix("app/cli.py"),
                check=False,
                timeout=120,
            )
            for _ in range(2)
        )
        assert len(server.stored()) >= 3  # and the one that proved it takes writes, for a second
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert first.stderr.startswith(b"warm: line 3: body: not JSON")
    summaries = [json.loads(run.stdout) for run in (first, again)]
    counts = [
        (s["lines"], s["invalid"], s["distinct"], s["generated"], s["already_there"]) for s in summaries
    ]
    assert counts == [(4, 1, 3, 3, 0), (4, 1, 3, 0, 3)]
    assert summaries[0]["failed"] == {}


def environment(url: str) -> dict[str, str]:
    import os  # noqa: PLC0415

    return {**os.environ, "REWRITE_REDIS_URL": url}
