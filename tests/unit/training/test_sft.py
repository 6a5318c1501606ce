from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from app.contracts.prompt import CONTROL_TOKENS, PAD
from training.ablation_bench import Plan
from training.canary.ab import AbConfig
from training.config import ConfigError, LoopConfig, RelevanceConfig, RunConfig, Section, read_config
from training.cycle import CycleConfig
from training.drill.plan import DrillConfig
from training.gate.policy import Policy
from training.gate.window import WindowConfig
from training.mixture import Encoded
from training.sft import IGNORED, new_model, rate, target_logits, tensors, token_meanings, train
from training.tokenizer import train_tokenizer
from training.weeks.run import WeeksConfig

CONFIGS = Path(__file__).parents[3] / "training" / "configs"


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    return config.model_copy(update={"optim": config.optim.model_copy(update={"steps": steps})})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_and_an_interruption_changes_nothing(
    mini_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(mini_config, tmp_path / "whole")

    class Killed(Exception):  # noqa: N818 - stands for a signal
        pass

    from training import sft  # noqa: PLC0415 - the module is what is interrupted

    step = sft._step

    def killed_at_nine(state: sft.State, *rest: object) -> tuple[float, int]:
        if state.step == 9:
            raise Killed
        return step(state, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sft, "_step", killed_at_nine)
    with pytest.raises(Killed):
        train(mini_config, tmp_path / "cut")
    monkeypatch.setattr(sft, "_step", step)
    resumed, _ = train(mini_config, tmp_path / "cut")

    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    lines = [json.loads(line) for line in (tmp_path / "cut" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))


def test_another_seed_gives_other_weights(mini_config: RunConfig, tmp_path: Path) -> None:
    config = with_steps(mini_config, 1)
    one, _ = train(config, tmp_path / "one")
    two, _ = train(config.model_copy(update={"seed": 4}), tmp_path / "two")
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)


def test_it_learns(mini_config: RunConfig, tmp_path: Path) -> None:
    train(with_steps(mini_config, 60), tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_only_the_rewrite_is_scored_each_token_by_the_one_before_it() -> None:
    ids, labels = tensors([Encoded([5, 6], [7, 1]), Encoded([5], [1])], CONTROL_TOKENS.index(PAD))
    assert ids.tolist() == [[5, 6, 7, 1], [5, 1, 0, 0]]
    assert labels.tolist() == [[IGNORED, 7, 1, IGNORED], [1, IGNORED, IGNORED, IGNORED]]


def test_padding_does_not_change_what_is_scored(mini_config: RunConfig) -> None:
    torch.manual_seed(0)
    model = new_model(mini_config.model).eval()
    short, long = Encoded([9, 10, 11], [12, 1]), Encoded([20] * 30, [13, 1])
    alone = target_logits(model, *tensors([short], 0))
    padded = target_logits(model, *tensors([short, long], 0))[:2]
    assert torch.allclose(alone, padded, atol=0.05)


def test_the_rate_rises_then_falls_to_zero(mini_config: RunConfig) -> None:
    optim = mini_config.optim.model_copy(update={"steps": 100, "warmup_ratio": 0.1})
    rates = [rate(step, optim) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == 0.0
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_the_configs_in_the_repository_are_valid() -> None:
    kinds: dict[str, type[Section]] = {
        "ab": AbConfig,
        "ablations": Plan,
        "cycle": CycleConfig,
        "default": RunConfig,
        "drill": DrillConfig,
        "gate": Policy,
        "loop": LoopConfig,
        "qwen3": LoopConfig,
        "relevance": RelevanceConfig,
        "weeks": WeeksConfig,
        "window": WindowConfig,
    }
    for path in CONFIGS.glob("*.toml"):
        assert read_config(path, kinds[path.stem.split("-")[0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [("name = ", "Invalid value"), ("name = 'x'", "seed"), ("surprise = 1", "surprise")],
)
def test_a_wrong_config_is_refused_by_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "c.toml", RunConfig)
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path / "none.toml", RunConfig)


def test_words_that_mean_alike_start_alike() -> None:
    words = ["nurse", "doctor", "laptop", "computer"]
    tokenizer = train_tokenizer(words * 20, 330)
    found = token_meanings(tokenizer, 32)
    assert found.shape == (tokenizer.get_vocab_size(), 32)
    nurse, doctor, laptop, computer = (found[tokenizer.encode(word).ids[-1]] for word in words)
    assert len({tuple(tokenizer.encode(word).ids) for word in words}) == 4
    assert float(nurse @ doctor) > float(nurse @ laptop)
    assert float(laptop @ computer) > float(doctor @ computer)
    assert found.std() == pytest.approx(0.02, rel=1e-3)


def test_a_run_may_start_from_meanings(mini_config: RunConfig, tmp_path: Path) -> None:
    config = with_steps(mini_config, 1)
    plain, _ = train(config, tmp_path / "plain")
    meant, tokenizer = train(config.model_copy(update={"semantic_start": True}), tmp_path / "meant")
    start = torch.from_numpy(token_meanings(tokenizer, config.model.hidden_size))
    near = (meant.lm_head.weight - start).abs().mean()
    assert near < 0.5 * (plain.lm_head.weight - start).abs().mean()
