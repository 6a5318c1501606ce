"""The Dockerfile keeps to the rules of its trade; tests/image_lane builds it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_hadolint_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_served_runs_unprivileged_and_can_be_asked_for_its_health() -> None:
    for target in ("serve", "serve-gpu", "train"):
        stage = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)
        (lines,) = [one for one in stage if one.startswith(f"{target}\n")]
        users = re.findall(r"^USER (.*)$", lines, re.MULTILINE)
        assert users[-1:] in ([], ["10001:10001"])  # none: as the stage before it has it
        assert ('CMD ["corewrite", "probe"]' in lines) == (target != "train")


def test_only_extras_that_there_are_are_installed() -> None:
    asked = {name for names in re.findall(r"\.\[([a-z0-9,]+)\]", DOCKERFILE) for name in names.split(",")}
    assert asked
    assert asked <= set(PROJECT["optional-dependencies"])


def test_versions_are_those_of_the_project() -> None:
    assert re.findall(r"corewrite:(\d\S*)", DOCKERFILE) == [PROJECT["version"]]
    assert "vllm==" in DOCKERFILE
    locked = dict(
        line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line
    )
    assert f"onnxruntime-gpu=={locked['onnxruntime']}" in DOCKERFILE
