"""A pass over the pairs: its shift, log and schedule, a function of its seed, the same in two processes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_pairs import made_up_pairs
from safetensors.torch import load_file
from tiny_policy import write_policy

from training.config import MpoConfig
from training.mpo_phase import MOMENTS, PhaseError, train_phase

CONFIG = MpoConfig(beta=0.5, learning_rate=1e-2, batch=4, bf16=False)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def pairs(policy: Path) -> Path:
    file = policy / "pairs.jsonl"
    file.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in made_up_pairs(policy, 12)))
    return file


def passed(
    policy: Path, pairs: Path, folder: Path, config: MpoConfig = CONFIG, seed: int = 1
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The weights and the log of a pass."""
    train_phase(policy, pairs, config, folder / "next", seed=seed, steps_file=folder / "steps.jsonl")
    assert not (folder / "next.part").exists()
    assert (folder / "next" / "tokenizer.json").exists()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return load_file(folder / "next" / "model.safetensors"), steps


def test_the_shift_is_the_mean_reward_of_the_steps_before(policy: Path, pairs: Path, tmp_path: Path) -> None:
    _, steps = passed(policy, pairs, tmp_path)
    assert [step["step"] for step in steps] == [1, 2, 3]
    rewards = [(step["rewards/chosen"] + step["rewards/rejected"]) / 2 for step in steps]
    shifts = [step["rewards/shift"] for step in steps]
    assert shifts[0] == 0
    assert shifts[1:] == pytest.approx([rewards[0], sum(rewards[:2]) / 2], abs=1e-6)
    assert rewards[0] == pytest.approx(0, abs=1e-5)  # the policy is the reference at first
    assert rewards[2] != pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_pass_is_a_function_of_its_seed(policy: Path, pairs: Path, tmp_path: Path, rank: int) -> None:
    config = CONFIG.model_copy(update={"lora_rank": rank})
    folders = [tmp_path / name for name in ("one", "again", "other")]
    for folder in folders:
        folder.mkdir()
    one, again, other = (
        passed(policy, pairs, folder, config, seed)[0]
        for folder, seed in zip(folders, (1, 1, 2), strict=True)
    )
    before = load_file(policy / "model.safetensors")
    assert one.keys() == before.keys()  # adapters are merged
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], before[name]) for name in one)


def test_passes_of_a_loop_share_a_schedule_and_the_moments(policy: Path, pairs: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"warmup_ratio": 0.5})
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, start, span in ((first, policy, (0.0, 0.5)), (second, first / "next", (0.5, 1.0))):
        folder.mkdir()
        log = folder / "steps.jsonl"
        train_phase(start, pairs, config, folder / "next", seed=1, steps_file=log, span=span)
    rates = [
        json.loads(line)["learning_rate"]
        for folder in (first, second)
        for line in (folder / "steps.jsonl").read_text().splitlines()
    ]
    shares = [1 / 3, 2 / 3, 4 / 6, 3 / 6, 2 / 6, 1 / 6]  # up over the first three of six, then down
    assert rates == pytest.approx([share * config.learning_rate for share in shares])
    steps = [torch.load(folder / "next" / MOMENTS)[0]["step"] for folder in (first, second)]
    assert [int(step) for step in steps] == [3, 6]


def test_two_processes_have_the_losses_of_one(policy: Path, pairs: Path, tmp_path: Path) -> None:
    """By torchrun over gloo; the chosen completions of the two differ in length."""
    logs, weights = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        found, steps = passed(policy, pairs, folder, CONFIG.model_copy(update={"processes": processes}))
        logs.append(steps)
        weights.append(found)
    for one, two in zip(*logs, strict=True):
        for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/shift", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-4), name


def test_without_pairs_there_is_nothing_to_learn(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(PhaseError, match="no pairs"):
        passed(policy, tmp_path / "pairs.jsonl", tmp_path)
