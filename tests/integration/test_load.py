"""The load test itself on real servers, at a trickle: what counts is what was answered, never how fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from loadtest.fleet import missing
from loadtest.scenarios import Scenario, Stretch

ROOT = Path(__file__).parents[2]
MARK = "COREWRITE_LOAD_OF"

_ONE = Scenario(name="one", why="it needs one", stretches=(Stretch(seconds=9, rate=0),), store="postgres")
if missing(_ONE):
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)
SCENARIOS = """
settings = { engine_threads = 1, deadline_ms = 20_000, signals_deadline_ms = 20_000, relevance = "none" }

[traffic]
queries = 12
zipf = 1.0
clients = 10
candidates = [2, 4]
document_words = 5
think_s = 0.1
click_ratio = 1.0
strict_ratio = 0.5

[[scenario]]
name = "steady"
why = "with signals"
stretches = [{ seconds = 4, rate = 1.0 }]
warm_s = 1
settings = { relevance = "onnx" }

[[scenario]]
name = "swap"
why = "to the second and back"
stretches = [{ seconds = 6, rate = 2.0 }]
warm_s = 0
judged = true
settings = { min_confidence = 0.0, cache_entries = 4 }
incidents = [{ at = 2, do = "swap", to = "second" }, { at = 4, do = "swap", to = "first" }]

[[scenario]]
name = "replica_killed"
why = "one of two, and the store for a while"
stretches = [{ seconds = 8, rate = 1.0 }]
warm_s = 0
replicas = 2
store = "postgres"
incidents = [
  { at = 2, do = "replica_kill" },
  { at = 3, do = "postgres_kill" },
  { at = 5, do = "postgres_start" },
]
"""
SLOS = """
[[generator]]
measure = "generator_cpu_ratio"
most = 10.0
unit = "never broken: the machine may be busy"
why = "as above"
""" + "".join(
    f"""
[[slo]]
measure = "{measure}"
{end} = {value}
unit = ""
why = "correctness"
"""
    for measure, end, value in (
        ("answered_ratio", "least", 1.0),
        ("altered", "most", 0),
        ("fallback_ratio", "most", 0.0),
        ("events_acknowledged", "least", 1),
        ("events_lost", "most", 0),
        ("events_miscounted", "most", 0),
        ("events_unacknowledged", "most", 0),
        ("incidents_astray", "most", 0),
    )
)


def command(folder: Path, *words: str) -> list[str]:
    (folder / "scenarios.toml").write_text(SCENARIOS, encoding="utf-8")
    (folder / "slo.toml").write_text(SLOS, encoding="utf-8")
    files = ["--scenarios", str(folder / "scenarios.toml"), "--slo", str(folder / "slo.toml")]
    run = [sys.executable, "-m", "loadtest.run", "--saturation", "3"]
    return [*run, *files, "--out", str(folder / "out"), "--runs", str(folder / "runs"), *words]


def environment(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("REWRITE_")}
    return {**own, "PYTHONPATH": str(ROOT), MARK: str(folder)}


def test_a_trickle_is_answered_right_through_a_swap_and_a_fault(tmp_path: Path) -> None:
    words = command(tmp_path, "steady", "swap", "replica_killed")
    done = subprocess.run(
        words, env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "out" / "load.json").read_text(encoding="utf-8"))
    steady, swap, killed = told["scenarios"]
    assert [one["verdict"] for one in told["scenarios"]] == ["PASS"] * 3
    assert steady["measures"]["cut_ratio"] == 0.0

    assert [one["refused"] for one in swap["incidents"]] == [None, None]
    measures = swap["measures"]
    assert (measures["wrong_version"], swap["rules_broken"]) == (0, {})
    assert measures["judged_answers"] > 10
    assert measures["told_apart_ratio"] > 0.5

    assert killed["measures"]["retried_ratio"] > 0.0  # the other one has answered
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| swap | **PASS** |" in page
    assert "made-up job titles" in page
    assert (tmp_path / "out" / "replica_killed.png").exists()
    assert _left_over(tmp_path) == []


def test_costs_are_measured_and_held_against_other_loads(tmp_path: Path) -> None:
    words = command(tmp_path, "costs", "--scale", "0.03")
    with_relevance = SCENARIOS.replace('relevance = "none"', 'relevance = "onnx"')
    (tmp_path / "scenarios.toml").write_text(with_relevance, encoding="utf-8")
    done = subprocess.run(
        words, env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    file = tmp_path / "out" / "load.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    costs = told["costs"]
    assert costs["hit"]["loop_s"] > 0
    assert all(one["loop_s"] > 0 and one["engine_s"] > 0 for one in costs["miss"].values())
    assert all(one["relevance_s"] > one["loop_s"] > 0 for one in costs["signals"].values())
    assert len(told["checks"]) == 4
    assert all(min(one["measured_per_s"], one["predicted_per_s"]) > 0 for one in told["checks"])
    assert "predicted / measured" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")

    asked = ["--rate", "1000", "--hit-ratio", "0.8", "--costs", str(file)]
    said = subprocess.check_output([sys.executable, "-m", "loadtest.capacity", *asked], cwd=ROOT, text=True)
    assert "1,000 rewrites/s take" in said
    assert _left_over(tmp_path) == []


def test_told_to_end_it_takes_its_servers_along(tmp_path: Path) -> None:
    words = command(tmp_path, "replica_killed")
    errors = tmp_path / "errors"
    with errors.open("wb") as told:
        process = subprocess.Popen(words, env=environment(tmp_path), cwd=ROOT, stderr=told)
    try:
        # Both replicas: all that it starts is there.
        wait_until(lambda: len(list(tmp_path.glob("runs/*/*.log"))) == 2, within_s=120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
        process.wait()
    assert "stopped" in errors.read_text(encoding="utf-8")
    wait_until(lambda: _left_over(tmp_path) == [])


def _left_over(folder: Path) -> list[Any]:
    """Processes that a run has started: they have its mark in their environment."""
    mark, found = f"{MARK}={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            started = mark in (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if started and b"loadtest.run" not in words and words != [b""]:
            found.append(words)
    return found
