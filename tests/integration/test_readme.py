"""The README as a new user runs it: its commands exist, its examples give what it shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def example(name: str) -> str:
    """The fenced block after the marker."""
    found = re.search(rf"<!-- example:{name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """`corewrite serve` with the default checkpoint, as `make serve` runs it."""
    port = free_port()
    process = subprocess.Popen(
        [str(BIN / "corewrite"), "serve", "--port", str(port)],
        env={**os.environ, "REWRITE_DEADLINE_MS": "20000", "REWRITE_SIGNALS_DEADLINE_MS": "20000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(ready, within_s=60)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert {"serve", "test"} <= named <= targets


def test_every_file_that_the_readme_links_to_or_names_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked
    named = re.findall(r"`((?:app|training|docs)/[\w./]+\.\w+)`", README)
    assert not [path for path in (*linked, *named) if not (ROOT / path).exists()]


def asked(name: str, served: str) -> Any:
    """The answer to the request of an example."""
    words = shlex.split(example(name).replace("\\\n", " "))
    path = words[words.index("-s") + 1].removeprefix("http://127.0.0.1:8080")
    body = words[words.index("-d") + 1]
    return httpx.post(served + path, content=body, timeout=30).json()


def test_the_request_gives_the_answer_that_is_shown(served: str) -> None:
    answer = asked("request", served)
    shown = json.loads(example("answer"))
    for volatile in ("query_id", "timings_ms"):
        assert shown.pop(volatile)
        assert answer.pop(volatile)
    for rewrite in (*shown["rewrites"], *answer["rewrites"]):
        rewrite["logprob"], rewrite["confidence"] = (
            round(rewrite["logprob"], 3),
            round(rewrite["confidence"], 3),
        )
    assert answer == shown


def test_the_signals_are_those_that_are_shown(served: str) -> None:
    answer, shown = asked("signals-request", served)["stages"], json.loads(example("signals-answer"))
    found, expected = answer["finerank"].pop("documents"), shown["finerank"].pop("documents")
    assert answer == shown
    # Products in 8 bits differ in the last digits from one kind of processor to another.
    assert found == [
        {
            name: pytest.approx(value, rel=0.03, abs=1e-3) if isinstance(value, float) else value
            for name, value in document.items()
        }
        for document in expected
    ]


def test_the_command_prints_what_is_shown() -> None:
    prompt, *lines = example("command").splitlines()
    words = shlex.split(prompt.removeprefix("$ "))
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == lines


@pytest.mark.parametrize("line", re.findall(r"^\.venv/bin/(.*)$", README, re.MULTILINE))
def test_the_other_commands_have_the_options_that_are_shown(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    options = [word for word in words if word.startswith("--")]
    plain = [word for word in words[: words.index(options[0])] if word]
    helped = subprocess.run(
        [str(BIN / program), *plain, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert not [option for option in options if option not in helped.stdout]
