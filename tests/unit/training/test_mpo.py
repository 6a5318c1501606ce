"""The loss against its closed form, and its gradient."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from made_up_pairs import made_up_pairs
from tiny_policy import logprobs, write_policy

from training.config import MpoConfig
from training.mpo import MpoTrainer, PairIds, RunningMean, make_trainer

CONFIG = MpoConfig(beta=0.5, learning_rate=1e-2, batch=4, bf16=False)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


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
    given = made_up_pairs(policy, 4)
    trainer = make_trainer(policy, given, config, tmp_path, seed=1)
    model = other_weights(trainer)
    trainer.shift.value = shift
    expected = closed_form(model, given, config, shift)
    assert float(loss_of(trainer).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_the_loss(policy: Path, tmp_path: Path) -> None:
    trainer = make_trainer(policy, made_up_pairs(policy, 4), CONFIG, tmp_path, seed=1)
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


def test_batches_of_a_step_count_as_one() -> None:
    mean = RunningMean()
    for batch in ([1.0, 3.0], [5.0]):
        for value in batch:
            mean.see(value)
        mean.end_step()
    assert mean.value == pytest.approx(3.5)
