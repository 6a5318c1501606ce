"""From searches to a policy: wired together, and blind to every dev label."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from app.ray_actors import Workers
from app.registry.checkpoint import load_checkpoint
from app.relevance.base import Content
from app.relevance.choice import DEFAULT_RELEVANCE
from training.cli import run_loop
from training.config import ConfigError, LogConfig, LoopConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.on_ray import workers_for
from training.run_loop import claim, split, trimmed

WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from app.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write("\\n".join(opened))
sys.exit(code)
"""


def instance(query: str) -> Instance:
    clicked = tuple(Seen(Content(f"{query} {n}"), rate) for n, rate in enumerate((0.2, 0.9, 0.5)))
    return Instance(query, clicked, clicked[:1], ())


def test_a_query_is_on_one_side_whatever_else_is_in_the_log() -> None:
    instances = [instance(f"query {n}") for n in range(1000)]
    learning, held_out = split(instances, 0.2)
    assert 150 < len(held_out) < 250
    assert len(learning) + len(held_out) == 1000
    some = split(instances[::3], 0.2)[1]
    assert {one.query for one in some} == {one.query for one in held_out} & {
        one.query for one in instances[::3]
    }


def test_the_documents_of_the_highest_rates_are_kept() -> None:
    kept = trimmed(instance("q"), 2)
    assert [seen.rate for seen in kept.clicked] == [0.9, 0.5]
    assert trimmed(instance("q"), 9) == trimmed(instance("q"), 3)


def test_a_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    config = LoopConfig(
        name="one",
        seed=1,
        data_dir=tmp_path,
        checkpoint=tmp_path,
        relevance=tmp_path,
        phases=1,
        instances=1,
        log=LogConfig(corpus=tmp_path),
    )
    claim(tmp_path / "run", config)
    claim(tmp_path / "run", config.model_copy(update={"threads": 7}))
    with pytest.raises(ConfigError, match=r"another `seed`: go on with"):
        claim(tmp_path / "run", config.model_copy(update={"seed": 2}))


def test_an_unusable_config_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from argparse import Namespace  # noqa: PLC0415 - only here

    assert run_loop(Namespace(config=tmp_path / "none.toml", run_dir=tmp_path, out=None)) == 2
    assert "none.toml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workers", "2"], "are for --engine ray"),
        (["--ray-address", "auto"], "are for --engine ray"),
        (["--engine", "ray", "--workers", "0"], "at least 1"),
    ],
)
def test_workers_are_rays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    command = ["train", "loop", "--config", "training/configs/loop.toml", "--run-dir", str(tmp_path / "run")]
    assert main([*command, *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("engine", "gpus"), [("vllm", "all"), ("embedded", "none"), ("auto", "some")])
def test_workers_take_a_gpu_where_their_engine_can_use_one(tmp_path: Path, engine: str, gpus: str) -> None:
    config = LoopConfig(
        name="one",
        seed=1,
        data_dir=tmp_path,
        checkpoint=tmp_path,
        relevance=tmp_path,
        phases=1,
        instances=1,
        log=LogConfig(corpus=tmp_path),
        sampling=SampleConfig.model_validate({"engine": engine}),
    )
    assert workers_for(config, 3, address=None) == Workers(3, 1, gpus)  # type: ignore[arg-type]


def test_no_dev_label_is_opened_by_a_whole_run(shared_data: Path, tmp_path: Path) -> None:
    """As a user runs it, on the real data, every file that the process opens written down."""
    config = tmp_path / "loop.toml"
    config.write_text(f"""
name = "watched"
seed = 1
data_dir = "{shared_data}"
checkpoint = "app/registry/default"
relevance = "{DEFAULT_RELEVANCE}"
phases = 1
instances = 8
threads = 1
[log]
corpus = "{shared_data}/jobs/corpus.jsonl"
needs = 30
searches = 6
held_out_ratio = 0.2
[sampling]
num_generations = 4
[pairs]
tie = 0.0
""")
    command = [sys.executable, "-c", WATCH, str(tmp_path / "opened"), "train", "loop"]
    command += ["--config", str(config), "--run-dir", str(tmp_path / "run")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    opened = (tmp_path / "opened").read_text().splitlines()
    read = {str(Path(name).relative_to(shared_data)) for name in opened if str(shared_data) in name}
    assert {"jobs/corpus.jsonl", "jobs/labels_train.tsv", "jobs/synonyms_train.tsv"} <= read
    assert not [name for name in read if "qrels" in name or "queries" in name or "dev" in name]
    measured = json.loads((tmp_path / "run" / "phase-01" / "measures.json").read_text())
    assert 0 <= measured["improved"] <= 1
    assert (tmp_path / "run" / "phases.png").read_bytes().startswith(b"\x89PNG")
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert (checkpoint.id, checkpoint.manifest.parent) == ("watched", "default")
    card = (checkpoint.path / "README.md").read_text(encoding="utf-8")
    assert f"| 1 | {measured['reward']} |" in card
