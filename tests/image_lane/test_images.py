"""The images of the Dockerfile, built by its lines, and run as a careful cluster would: see containers.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import REPOSITORY, Builder, Image
from mini_data import sft_config, write_data

PORT = 18199
PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    builder = Builder(tmp_path_factory.mktemp("images"))
    builder.base()
    yield builder
    builder.clear()


@pytest.fixture(scope="session")
def serve(builder: Builder) -> Image:
    return builder.build("serve")


@pytest.fixture(scope="session")
def train(builder: Builder) -> Image:
    return builder.build("train")


@pytest.fixture(scope="session")
def serve_gpu(builder: Builder) -> Image:
    """Without what makes it one: gigabytes of wheels for a GPU that is not here."""
    locked = re.search(r"^onnxruntime==\S+", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    return builder.build("serve-gpu", VLLM="", ONNXRUNTIME=locked[0])


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


def test_whoever_is_inside_may_throw_the_kill_switch(serve: Image) -> None:
    """Though the user has no name there, which the audit trail asks for."""
    store = "sqlite:////tmp/rollouts.db"
    words = ("corewrite", "rollout", "kill", "--why", "drill")
    done = subprocess.run(
        serve.command(*words, REWRITE_ROLLOUTS=store), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"KILLED .* by uid 10001@\S+: drill", done.stdout)


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


def test_training_writes_a_checkpoint_from_a_root_that_is_read_only(train: Image, tmp_path: Path) -> None:
    """Two steps on made-up data; what is written is under /tmp."""
    write_data(tmp_path / "data")
    (tmp_path / "sft.toml").write_text(sft_config("/srv/data"), encoding="utf-8")
    os.chmod(tmp_path, 0o755)  # noqa: PTH101, S103 -- for 10001 to read
    words = ("sft", "--config", "/srv/sft.toml", "--run-dir", "/tmp/run")  # noqa: S108 -- the image's own
    code = (
        "import sys; from pathlib import Path; from app.cli import main\n"
        "status = main(['train', *sys.argv[1:]])\n"
        "sys.exit(status or not Path('/tmp/run/checkpoint/manifest.json').is_file())"
    )
    done = subprocess.run(
        train.command("python", "-c", code, *words, given=tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert train.config["User"] == "10001:10001"


def test_what_the_cycle_and_ray_need_is_in_the_image_that_trains(train: Image) -> None:
    for words in (("cycle", "--help"), ("train", "loop", "--help"), ("gate", "--help")):
        assert status(train, "corewrite", *words) == 0
    assert (
        status(train, "python", "-c", "import torch, trl, peft, ray.data, s3fs, cryptography, psycopg") == 0
    )
    assert status(train, "python", "-c", "import pip") == 1


def test_a_node_of_a_ray_cluster_takes_jobs(train: Image) -> None:
    """As k8s/ray has it started: from a root that is read-only, with a command handed in over HTTP."""
    script = (
        "ray start --head --num-cpus=1 --object-store-memory=80000000 --dashboard-host=0.0.0.0 "
        "--temp-dir=/tmp/ray --disable-usage-stats > /tmp/started || { cat /tmp/started; exit 9; }; "
        "for i in $(seq 60); do ray job list > /dev/null 2>&1 && break; sleep 1; done; "
        "ray job submit -- corewrite cycle --help; told=$?; ray stop > /dev/null; exit $told"
    )
    done = subprocess.run(train.command("bash", "-lc", script), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "--ray-address" in done.stdout


def test_for_a_gpu_there_is_a_compiler_and_a_word_about_what_is_missing(serve_gpu: Image) -> None:
    """What Triton asks for, and a word where CUDA is missing; with its wheels it has not been built."""
    assert serve_gpu.config["User"] == "10001:10001"
    assert serve_gpu.environment["REWRITE_ENGINE"] == "vllm"
    source = "echo 'int main(void){return 0;}' > /tmp/a.c && gcc /tmp/a.c -o /tmp/a && /tmp/a"
    assert status(serve_gpu, "sh", "-c", source) == 0
    done = subprocess.run(serve_gpu.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "for CUDA install onnxruntime-gpu" in done.stderr
