"""Which engine draws: what is installed, what the machine has, what the policy is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_policy import write_policy

import training.policy_engine
from app.engines.embedded import EmbeddedEngine
from app.engines.vllm import VllmEngine
from training.config import SampleConfig
from training.policy_engine import engine_kind, policy_engine
from training.transformers_engine import TransformersEngine


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


@pytest.mark.parametrize(
    ("installed", "gpu", "expected"),
    [(True, True, "vllm"), (True, False, "embedded"), (False, True, "embedded"), (False, False, "embedded")],
)
def test_vllm_takes_both_itself_and_a_gpu(
    policy: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool, gpu: bool, expected: str
) -> None:
    monkeypatch.setattr(training.policy_engine, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert engine_kind(policy, "auto") == expected


def test_what_the_embedded_engine_does_not_read_transformers_does(policy: Path) -> None:
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert engine_kind(policy, "auto") == "transformers"
    (policy / "config.json").write_text(json.dumps(config))
    assert engine_kind(policy, "auto") == "embedded"
    (policy / "model.safetensors").rename(policy / "model-00001-of-00002.safetensors")
    assert engine_kind(policy, "auto") == "transformers"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vllm", VllmEngine), ("embedded", EmbeddedEngine), ("transformers", TransformersEngine)],
)
def test_an_engine_that_is_named_is_taken(policy: Path, name: str, kind: type) -> None:
    config = SampleConfig.model_validate({"engine": name, "vllm_arguments": {"dtype": "float32"}})
    assert isinstance(policy_engine(policy, config, threads=1), kind)
