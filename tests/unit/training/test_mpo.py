"""The loss against its closed form, its shift, its gradient; the same phase gives the same policy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from tiny_policy import write_policy
from transformers import AutoModelForCausalLM

from training.config import MpoConfig
from training.mpo import MpoTrainer, PairIds, RunningMean, make_trainer, train_phase

CONFIG = MpoConfig(beta=0.5, learning_rate=1e-2, batch=4, bf16=False)
END = 1


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


def pairs(policy: Path, count: int) -> list[PairIds]:
    """Made-up ones, with what the policy thinks of them."""
    rng = Random(3)
    reference = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)

    def ids(longest: int) -> list[int]:
        return [rng.randrange(7, 6000) for _ in range(rng.randint(1, longest))]

    def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> PairIds:
        known = (sum(logprobs(reference, prompt, completion)) for completion in (chosen, rejected))
        return PairIds(prompt, chosen, rejected, *known, margin=1.0)

    return [pair(ids(6), [*ids(4), END], [*ids(4), END]) for _ in range(count)]


def logprobs(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    """Of each token of the completion, unpadded and alone."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [float(logits[place, token]) for place, token in zip(places, completion, strict=True)]


def closed_form(model: torch.nn.Module, batch: list[PairIds], config: MpoConfig, shift: float) -> float:
    """The loss of the paper, pair by pair."""

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    preference = quality = 0.0
    written: list[float] = []
    for pair in batch:
        chosen = logprobs(model, pair.prompt_ids, pair.chosen_ids)
        rejected = logprobs(model, pair.prompt_ids, pair.rejected_ids)
        better = config.beta * (sum(chosen) - pair.ref_chosen_logps)
        worse = config.beta * (sum(rejected) - pair.ref_rejected_logps)
        preference += softplus(worse - better)
        quality += softplus(shift - better) + softplus(worse - shift)
        written += chosen
    return (
        config.dpo_weight * preference / len(batch)
        + config.bco_weight * quality / len(batch)
        - config.sft_weight * sum(written) / len(written)
    )


def other_weights(trainer: MpoTrainer) -> torch.nn.Module:
    """Move the policy away from its reference."""
    model: torch.nn.Module = trainer.model
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def loss_of(trainer: MpoTrainer) -> torch.Tensor:
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(len(trainer.train_dataset))])
    loss: torch.Tensor = trainer.compute_loss(trainer.model, batch)
    return loss


@pytest.mark.parametrize("shift", [0.0, -0.7])
@pytest.mark.parametrize("weights", [(0.8, 0.2, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_the_loss_is_that_of_the_paper(
    policy: Path, tmp_path: Path, weights: tuple[float, float, float], shift: float
) -> None:
    dpo, bco, sft = weights
    config = CONFIG.model_copy(update={"dpo_weight": dpo, "bco_weight": bco, "sft_weight": sft})
    given = pairs(policy, 4)
    trainer = make_trainer(policy, given, config, tmp_path, seed=1)
    model = other_weights(trainer)
    trainer.shift.value = shift
    expected = closed_form(model, given, config, shift)
    assert float(loss_of(trainer).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_the_loss(policy: Path, tmp_path: Path) -> None:
    trainer = make_trainer(policy, pairs(policy, 4), CONFIG, tmp_path, seed=1)
    model = other_weights(trainer)
    trainer.shift.value = 0.4
    loss_of(trainer).backward()  # type: ignore[no-untyped-call]
    parameter = dict(model.named_parameters())["model.layers.0.mlp.up_proj.weight"]
    assert parameter.grad is not None
    place = parameter.grad.abs().argmax()
    gradient = float(parameter.grad.flatten()[place])
    step, values = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.flatten()[place] += sign * step
            values.append(float(loss_of(trainer)))
            parameter.flatten()[place] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient, rel=2e-2)


def test_the_shift_is_the_mean_reward_of_the_steps_before(policy: Path, tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    train_phase(policy, pairs(policy, 12), CONFIG, tmp_path / "next", seed=1, steps_file=log)
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    rewards = [(step["rewards/chosen"] + step["rewards/rejected"]) / 2 for step in steps]
    shifts = [step["rewards/shift"] for step in steps]
    assert shifts[0] == 0
    assert shifts[1:] == pytest.approx([rewards[0], sum(rewards[:2]) / 2], abs=1e-6)
    assert rewards[0] == pytest.approx(0, abs=1e-5)  # the policy is the reference at first
    assert rewards[2] != pytest.approx(0, abs=1e-5)


def test_batches_of_a_step_count_as_one() -> None:
    mean = RunningMean()
    for batch in ([1.0, 3.0], [5.0]):
        for value in batch:
            mean.see(value)
        mean.end_step()
    assert mean.value == pytest.approx(3.5)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_phase_is_a_function_of_its_seed(policy: Path, tmp_path: Path, rank: int) -> None:
    config = CONFIG.model_copy(update={"lora_rank": rank})
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        train_phase(
            policy, pairs(policy, 8), config, tmp_path / name, seed=seed, steps_file=tmp_path / f"{name}.log"
        )
    one, again, other, before = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "one", tmp_path / "again", tmp_path / "other", policy)
    )
    assert one.keys() == before.keys()  # adapters are merged
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], before[name]) for name in one)
    assert (tmp_path / "one" / "tokenizer.json").exists()
    assert not (tmp_path / "one.part").exists()


def test_without_pairs_there_is_nothing_to_learn(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        train_phase(policy, [], CONFIG, tmp_path / "next", seed=1, steps_file=tmp_path / "log")
