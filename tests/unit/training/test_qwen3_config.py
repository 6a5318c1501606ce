"""training/configs/qwen3-0.6b.toml as it stands, on a random model of that architecture and a tiny size."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_policy import write_policy
from transformers import Qwen3ForCausalLM

import training.run_loop
from app.contracts.reasons import Drop
from app.errors import CheckpointError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from app.relevance.choice import DEFAULT_RELEVANCE
from loadtest.sibling import publish
from training.config import LoopConfig, read_config

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "training" / "configs" / "qwen3-0.6b.toml"
# What sets Qwen3-0.6B apart from the default checkpoint, with little of it.
ARCHITECTURE = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 2048,
}
QUERIES = [f"{level} {job}" for level in ("senior", "night", "lead") for job in ("nurse", "welder", "baker")]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-qwen3"
    shutil.copytree(DEFAULT_CHECKPOINT, folder)
    write_policy(folder, **ARCHITECTURE)
    return publish(load_checkpoint(DEFAULT_CHECKPOINT), folder).path


def log_of_searches() -> Iterator[dict[str, Any]]:
    """Everybody clicks the document of their query, below one that they leave alone."""
    for number, query in enumerate(QUERIES):
        search = {"query_id": str(number), "user_query": query}
        yield {**search, "timestamp": 1_000_000 + number}
        for action, name, place in (("impression", "other", 0), ("click", f"d{number}", 1)):
            attributes = {"object": {"object_id": name}, "position": {"ordinal": place}}
            at = 1_000_000 + number + place
            yield {**search, "action_name": action, "timestamp": at, "event_attributes": attributes}


@pytest.fixture
def config(start: Path, tmp_path: Path) -> LoopConfig:
    """The file with other paths and sizes; all else is its own."""
    texts = {"other": "zebra keeper"} | {f"d{number}": f"{query} job" for number, query in enumerate(QUERIES)}
    corpus = [{"_id": name, "text": text} for name, text in texts.items()]
    for name, rows in (("corpus", corpus), ("searches", list(log_of_searches()))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    own = {
        **given,
        "data_dir": str(tmp_path),
        "checkpoint": str(start),
        "relevance": str(DEFAULT_RELEVANCE),
        "phases": 1,
        "instances": 6,
        "threads": 1,
        "logs": [{"corpus": str(tmp_path / "corpus.jsonl"), "events": [str(tmp_path / "searches.jsonl")]}],
        "reading": {"held_out_ratio": 0.3},
        "sampling": {**given["sampling"], "engine": "auto", "num_generations": 4, "max_tokens": 6},
        # Random weights write what the guard drops, and with a larger gamma all of it is clipped alike.
        "reward": {"not_floored": [str(drop.value) for drop in Drop], "gamma": 0.5},
        "pairs": {"tie": 0.0},
        "mpo": {**given["mpo"], "batch": 4},
    }
    return LoopConfig.model_validate(own)


def test_the_file_is_a_configuration_for_a_gpu() -> None:
    config = read_config(CONFIG, LoopConfig)
    assert config.sampling.engine == "vllm"
    assert (config.mpo.lora_rank, config.mpo.bf16) == (16, True)
    assert config.logs[0].events


def test_the_loop_trains_adapters_of_that_architecture(
    config: LoopConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last step: a random model is never right, and a confidence cannot be fitted on that."""
    published: list[Path] = []
    monkeypatch.setattr(
        training.run_loop, "publish_policy", lambda _config, _loop, policy, *_: published.append(policy)
    )
    training.run_loop.run(config, tmp_path / "run", tmp_path / "out")
    phase = tmp_path / "run" / "phase-01"
    assert published == [phase / "policy"]
    assert json.loads((phase / "measures.json").read_text())["queries"] > 0
    assert (phase / "steps.jsonl").read_text().count("\n") > 0

    before, after = (
        load_file(folder / "model.safetensors") for folder in (config.checkpoint, phase / "policy")
    )
    assert before.keys() == after.keys()  # adapters are merged, the head is the embedding still
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all(name.split(".")[-2].endswith("_proj") for name in changed)
    model = Qwen3ForCausalLM.from_pretrained(phase / "policy")
    assert (model.config.head_dim, model.config.num_key_value_heads) == (128, 2)
    assert model.config.tie_word_embeddings


def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_is_done(
    config: LoopConfig, tmp_path: Path
) -> None:
    (tmp_path / "hub").mkdir()
    write_policy(tmp_path / "hub", **ARCHITECTURE)
    hub = config.model_copy(update={"checkpoint": tmp_path / "hub"})
    with pytest.raises(CheckpointError, match=r"manifest.json: no such file"):
        training.run_loop.run(hub, tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "run" / "phase-00").exists()
