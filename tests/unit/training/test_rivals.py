"""Rivals of the loop: they learn what is rewarded for each instance, and end when the budgets are spent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_configs import loop_config
from made_up_pairs import END
from safetensors.torch import load_file
from tiny_policy import write_policy
from transformers import Qwen3ForCausalLM

from app.contracts.prompt import Context, Item, render
from app.contracts.reasons import Drop
from app.engines.base import Completion
from app.engines.embedded import EmbeddedEngine
from app.engines.text import read_tokenizer
from app.relevance.base import Content
from training.config import ConfigError, LoopConfig, MpoConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.rating import RatedCompletion
from training.reward import Evidence, Reward
from training.rivals import Budgets, Judge, Kind, gradient_tokens, train_rival, with_near_floor
from training.sampling import sample

SEEN = (Seen(Content("job"), 1.0),)
LOW = Instance("mig welder", SEEN, (), ())
HIGH = Instance("icu rn", SEEN, (), (), Context(Item("Night shift", "New York"), ("nurse",)))
STEP_TOKENS = 2 * 16 * 6  # two completions a pair; random weights write no end

both_kinds = pytest.mark.parametrize("kind", ["grpo", "online_dpo"])


class FakeRater:
    """Likes tokens of the lower half of the vocabulary for `mig welder`, those of the upper for `icu rn`."""

    def __init__(self) -> None:
        self.asked: list[tuple[Instance, Sequence[Completion]]] = []
        self.calls = 0

    async def rate(
        self, instances: Sequence[Instance], drawn: Sequence[Sequence[Completion]]
    ) -> list[list[RatedCompletion]]:
        groups = list(zip(instances, drawn, strict=True))
        self.asked += groups
        self.calls += 1
        return [[rated(one, liked(instance, one)) for one in group] for instance, group in groups]


def liked(instance: Instance, one: Completion) -> float:
    low = sum(token < 3000 for token in one.token_ids) / len(one.token_ids)
    return low if instance is LOW else 1.0 - low


def rated(one: Completion, reward: float, drop: Drop | None = None) -> RatedCompletion:
    return RatedCompletion(one, reward, Reward(reward, reward, 0.0, 0.0, drop), Evidence(0.5, None, None))


def material(rater: FakeRater, instances: int = 16) -> tuple[list[Instance], Any]:
    return [LOW, HIGH] * (instances // 2), rater


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LoopConfig:
    torch.set_num_threads(1)
    policy = write_policy(tmp_path_factory.mktemp("policy"))
    return loop_config(
        policy,
        instances=2,
        # Random weights like all tokens alike: among few of them there is something to learn in few steps.
        sampling=SampleConfig(num_generations=8, max_tokens=6, top_p=0.01),
        mpo=MpoConfig(batch=16, learning_rate=1e-2, bf16=False),
    )


def rewards(config: LoopConfig, policy: Path) -> list[float]:
    """The mean of what is drawn for each of the two instances."""

    async def work() -> list[float]:
        engine = EmbeddedEngine(policy, weights_digest="0" * 64, threads=1, max_queue=2)
        await engine.start()
        drawn = await sample(engine, [LOW, HIGH], config.sampling, seed=3)
        await engine.close()
        return [
            sum(liked(instance, one) for one in group) / len(group)
            for instance, group in zip([LOW, HIGH], drawn, strict=True)
        ]

    return asyncio.run(work())


@both_kinds
def test_a_rival_learns_what_is_rewarded_for_each_instance(
    config: LoopConfig, tmp_path: Path, kind: Kind
) -> None:
    budgets = Budgets(seconds=0, tokens=24 * STEP_TOKENS)
    *_, last = train_rival(kind, config, *material(FakeRater()), tmp_path, budgets=budgets)
    before, after = rewards(config, config.checkpoint), rewards(config, last.folder)
    assert all(new > old + 0.25 for new, old in zip(after, before, strict=True))


@pytest.fixture
def timed_rater(monkeypatch: pytest.MonkeyPatch) -> FakeRater:
    """To rate takes a second, to write weights takes a hundred, and nothing else any time."""
    rater, written = FakeRater(), []
    save = Qwen3ForCausalLM.save_pretrained
    monkeypatch.setattr(
        Qwen3ForCausalLM, "save_pretrained", lambda self, to: (written.append(to), save(self, to))
    )
    monkeypatch.setattr("training.rivals.perf_counter", lambda: rater.calls + 100.0 * len(written))
    return rater


@both_kinds
@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (Budgets(seconds=3, tokens=1), [("tokens", 1), ("seconds", 3)]),
        (Budgets(seconds=1, tokens=STEP_TOKENS + 1), [("seconds", 1), ("tokens", 2)]),
    ],
)
def test_training_ends_when_both_budgets_are_spent(
    config: LoopConfig,
    tmp_path: Path,
    timed_rater: FakeRater,
    *,
    kind: Kind,
    budgets: Budgets,
    expected: list[tuple[str, int]],
) -> None:
    snapshots = train_rival(kind, config, *material(timed_rater), tmp_path, budgets=budgets)
    assert [(one.budget, one.steps) for one in snapshots] == expected
    assert [one.seconds for one in snapshots] == [one.steps for one in snapshots]
    assert [one.tokens for one in snapshots] == [one.steps * STEP_TOKENS for one in snapshots]
    drawn = [one for _, group in timed_rater.asked for one in group]
    assert sum(len(one.token_ids) for one in drawn) == snapshots[-1].tokens
    first, last = (load_file(tmp_path / f"by-{name}" / "model.safetensors") for name, _ in expected)
    assert any((first[name] != last[name]).any() for name in first)


@both_kinds
def test_a_rival_is_a_function_of_its_seed(config: LoopConfig, tmp_path: Path, kind: Kind) -> None:
    one, again, other = (
        train_rival(
            kind,
            config.model_copy(update={"seed": seed}),
            *material(FakeRater()),
            tmp_path / name,
            budgets=Budgets(seconds=0, tokens=2 * STEP_TOKENS),
        )[-1].folder
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    weights = [load_file(folder / "model.safetensors") for folder in (one, again, other)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert any((weights[0][name] != weights[2][name]).any() for name in weights[0])


@both_kinds
def test_prompts_are_the_tokens_of_the_loop_and_each_is_read_once(
    config: LoopConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    read: set[tuple[int, ...]] = set()
    widths: list[int] = []
    real = Qwen3ForCausalLM.forward

    def spied(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            widths.append(input_ids.shape[1])
            if len(widths) == 1:
                rows = zip(input_ids, attention_mask.bool(), strict=True)
                read.update(tuple(ids[mask].tolist()) for ids, mask in rows)
        return real(self, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", spied)
    # As the default checkpoint has it.
    policy = write_policy(tmp_path / "policy")
    generation = json.loads((policy / "generation_config.json").read_text())
    (policy / "generation_config.json").write_text(json.dumps({**generation, "use_cache": False}))
    budgets = Budgets(seconds=0, tokens=1)
    cacheless = config.model_copy(update={"checkpoint": policy})
    train_rival(kind, cacheless, *material(FakeRater()), tmp_path / "out", budgets=budgets)
    tokenizer, _ = read_tokenizer(policy)
    prompts = [render(one.query, one.context) for one in (LOW, HIGH)]
    assert read == {tuple(tokenizer.encode(one, add_special_tokens=False).ids) for one in prompts}
    assert widths[1:6] == [1] * 5


@pytest.mark.parametrize("place", [[0, 0, 1, 1], [0, 1, 0, 1]])
def test_completions_are_rated_for_their_instance_as_the_engine_would_have_them(
    config: LoopConfig, place: list[int]
) -> None:
    """Whether groups or rounds of them follow one another; what follows the end is padding."""
    tokenizer, _ = read_tokenizer(config.checkpoint)
    words = [
        tokenizer.encode(text, add_special_tokens=False).ids for text in ("nurse", "welder", "rn", "cook")
    ]
    ids = [[*words[0], END, 0, 0], [*words[1], END], [*words[2], 0, 2], [*words[3], END, END]]
    rater = FakeRater()
    judge = Judge(*material(rater, 2), config.checkpoint)
    found = judge(prompts=[], completions=[], completion_ids=ids, place=place, trainer_state=None)
    whole = [(*words[0], END), (*words[1], END), (*words[2], 0, 2), (*words[3], END)]
    assert judge.tokens == sum(map(len, whole))
    for instance, group in rater.asked:
        rows = [row for row, number in enumerate(place) if (LOW, HIGH)[number] is instance]
        assert [one.token_ids for one in group] == [whole[row] for row in rows]
        assert [one.text for one in group] == [("nurse", "welder", "rn", "cook")[row] for row in rows]
        assert [one.finish_reason for one in group] == ["length" if row == 2 else "stop" for row in rows]
        assert [found[row] for row in rows] == [liked(instance, one) for one in group]
    assert len(rater.asked) == 2


def test_the_floor_is_near_so_that_what_is_not_on_it_differs() -> None:
    one = Completion("nurse", (7, END), -1.0, "stop")
    group = [rated(one, 0.5), rated(one, -40.0, Drop.COPY), rated(one, -2.0)]
    assert with_near_floor(group) == [0.5, -3.0, -2.0]
    shaped = [rated(one, 0.7), rated(one, 0.0, Drop.COPY)]  # a shaping may have drawn it near already
    assert with_near_floor(shaped) == [0.7, 0.0]
    nothing = [rated(one, -40.0, Drop.COPY)] * 2
    assert len(set(with_near_floor(nothing))) == 1


@pytest.mark.parametrize(("kind", "generations", "instances"), [("grpo", 5, 16), ("online_dpo", 8, 14)])
def test_a_step_of_no_whole_groups_is_refused(
    config: LoopConfig, tmp_path: Path, kind: Kind, generations: int, instances: int
) -> None:
    sampling = config.sampling.model_copy(update={"num_generations": generations})
    with pytest.raises(ConfigError, match=r"change mpo\.batch"):
        train_rival(
            kind,
            config.model_copy(update={"sampling": sampling}),
            *material(FakeRater(), instances),
            tmp_path,
            budgets=Budgets(0, 0),
        )


def test_the_tokens_of_a_loop_are_those_of_its_pairs(tmp_path: Path) -> None:
    pair = {"prompt_ids": [5, 6], "chosen_ids": [7, 8, END], "rejected_ids": [9, END]}
    for phase, pairs in ((1, 2), (2, 1), (3, 4)):
        folder = tmp_path / f"phase-{phase:02d}"
        folder.mkdir()
        (folder / "pairs.jsonl").write_text((json.dumps(pair) + "\n") * pairs)
    assert gradient_tokens(tmp_path, phases=2) == 3 * 5
