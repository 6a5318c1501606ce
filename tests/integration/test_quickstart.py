"""docs/quickstart.md as a reader runs it: each block, one after the other, in one shell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left behind by all of its commands, none of which failed."""
    folder = tmp_path_factory.mktemp("corewrite")
    (folder / "app").symlink_to(ROOT / "app")
    made = folder / "quickstart"
    made.mkdir()
    for name, text in re.findall(r"<!-- file:(\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        (made / name).write_text(text, encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    # What it installs is installed: the tests' own environment has every extra.
    script = re.sub(r"^pip install .*$", ":", "".join(blocks), flags=re.MULTILINE)
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("REWRITE_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "REWRITE_PORT": str(free_port()),
            "REWRITE_DEADLINE_MS": "900",  # a reader's machine does nothing else meanwhile
            "REWRITE_SIGNALS_DEADLINE_MS": "900",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = shell.communicate(timeout=120)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    assert shell.returncode == 0, told
    return made


def test_the_search_is_helped_and_goes_on_without_the_service(folder: Path) -> None:
    helped = (folder / "with.txt").read_text(encoding="utf-8").splitlines()
    alone = (folder / "without.txt").read_text(encoding="utf-8").splitlines()
    assert helped[0] == "rewrites: nike men blue sports shoes"
    assert helped[1] == "  Nike Men Lunar Blue Sports Shoes"
    assert helped[-1].startswith("exposure: ")
    assert alone[0] == "rewrites: none"
    assert alone[1] != helped[1]
    assert not [line for line in alone if line.startswith("exposure")]


def test_the_event_counts(folder: Path) -> None:
    answer = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    assert answer == {"accepted": 1, "ignored": 0, "unknown": 0, "invalid": []}


def test_the_history_has_what_was_done_and_why(folder: Path) -> None:
    history = (folder / "history.txt").read_text(encoding="utf-8")
    for why in ("to see it move", "seen", "a drill", "the drill is over"):
        assert why in history
