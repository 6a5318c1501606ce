"""Rollouts on a real Ray cluster of two workers, with the models of the package.

In a process of its own, as the command runs, which can be told from others by its environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def samplers(folder: Path, happens: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("samplers.py")), str(folder), happens],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MARK": uuid.uuid4().hex},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_two_workers_one_of_them_killed_find_what_one_process_finds(tmp_path: Path) -> None:
    found = samplers(tmp_path, "kill")
    assert found["killed"]
    here, there = ([one for row in found[where] for one in row] for where in ("here", "there"))
    assert len(here) == 64 * 4
    assert found["heard"] == 64
    assert [one["completion"] for one in there] == [one["completion"] for one in here]
    # Who else is in a batch moves the last bits of an embedding.
    for name in ("reward", "terms", "evidence"):
        assert [one[name] for one in there] == [pytest.approx(one[name], abs=1e-5) for one in here]
    assert len({round(one["reward"], 2) for one in here}) > 50


def test_what_a_worker_finds_out_is_a_typed_error(tmp_path: Path) -> None:
    found = samplers(tmp_path, "no_weights")
    assert found["error"].startswith("EngineUnavailableError: ")
    assert "model.safetensors" in found["error"]


def test_ray_that_ends_without_a_word_is_a_typed_error(tmp_path: Path) -> None:
    """Ray ends the process that talks to it by exit() where it thinks that it must."""
    found = samplers(tmp_path, "kill_driver")
    assert found["error"].startswith("CorewriteError: Ray's process ended with status -9")
