"""The loop: phases follow one another, a killed one goes on to the same policy, a done one does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from fakes import FakeRelevance
from loop_configs import loop_config
from safetensors.torch import load_file
from tiny_policy import write_policy

import training.loop
from app.contracts.prompt import NO_CONTEXT, Context, Item, render
from app.contracts.reasons import Drop
from app.engines.text import read_tokenizer
from app.relevance.base import Content
from training.config import LoopConfig, MpoConfig, PairConfig, RewardConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.loop import Loop, Material, measured_phases, pairs_in
from training.loop_plot import draw_loop
from training.mpo_phase import PhaseError
from training.rating import Rater
from training.sampler import LocalSampler
from training.scoring import RawrankScorer

QUERIES = ("icu rn", "mig welder", "night clerk", "baker", "truck driver", "painter", "nurse aide")
SAMPLING = SampleConfig(num_generations=4, max_tokens=6)
VIEWED = Context(last_item=Item("Nike Shoe", "Men"))
"""What was known when the first of them was typed."""
REWARD = RewardConfig(not_floored=tuple(Drop))  # random weights write what the guard drops


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> LoopConfig:
    policy = write_policy(tmp_path_factory.mktemp("policy"))
    return loop_config(
        policy,
        phases=2,
        instances=4,
        threads=1,
        sampling=SAMPLING,
        reward=REWARD,
        pairs=PairConfig(k=2, tie=0.0),
        mpo=MpoConfig(batch=4, learning_rate=1e-2),
    )


CONTEXTS = dict.fromkeys(QUERIES, NO_CONTEXT) | {QUERIES[0]: VIEWED}


def material() -> Material:
    instances = [
        Instance(query, (Seen(Content(f"{query} job"), 1.0),), (Seen(Content("zebra"), 0.5),), (), context)
        for query, context in CONTEXTS.items()
    ]
    rater = Rater(REWARD, {"rawrank": RawrankScorer(FakeRelevance())})
    return Material(instances[:5], instances[5:], LocalSampler(SAMPLING, rater, threads=1))


@pytest.fixture(scope="module")
def whole(config: LoopConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a loop that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert Loop(config, material(), folder).run() == folder / "phase-02" / "policy"
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_phase_draws_from_the_policy_of_the_one_before(config: LoopConfig, whole: Path) -> None:
    weights = [
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (config.checkpoint, whole / "phase-01" / "policy", whole / "phase-02" / "policy")
    ]
    assert all((weights[n] != weights[n + 1]).any() for n in range(2))
    drawn = [lines(whole / f"phase-0{phase}" / "drawn.jsonl") for phase in (1, 2)]
    assert all(len(one["completions"]) == 4 for phase in drawn for one in phase)
    queries = [one["query"] for phase in drawn for one in phase]
    assert len(queries) == 8
    assert set(queries[:5]) == set(QUERIES[:5])  # each once before any comes again
    assert not set(queries) & set(QUERIES[5:])


def test_pairs_are_of_what_was_drawn_the_better_one_chosen(whole: Path) -> None:
    pairs = lines(whole / "phase-01" / "pairs.jsonl")
    assert pairs
    assert all(pair["margin"] > 0 for pair in pairs)
    rewards = [
        one["reward"] for row in lines(whole / "phase-01" / "drawn.jsonl") for one in row["completions"]
    ]
    assert max(pair["margin"] for pair in pairs) <= max(rewards) - min(rewards) + 1e-3
    steps = lines(whole / "phase-01" / "steps.jsonl")
    assert [step["step"] for step in steps] == list(range(1, -(-len(pairs) // 4) + 1))
    assert all(step["loss"] > 0 for step in steps)


def test_what_is_drawn_and_paired_is_so_in_its_context(config: LoopConfig, whole: Path) -> None:
    tokenizer, _ = read_tokenizer(config.checkpoint)
    prompts = {
        tuple(tokenizer.encode(render(query, context), add_special_tokens=False).ids): query
        for query, context in CONTEXTS.items()
    }
    phases = [whole / f"phase-0{phase}" for phase in (1, 2)]
    paired = {prompts[tuple(pair["prompt_ids"])] for of in phases for pair in lines(of / "pairs.jsonl")}
    drawn = {row["query"]: row.get("context") for of in phases for row in lines(of / "drawn.jsonl")}
    assert QUERIES[0] in paired <= drawn.keys()
    assert drawn[QUERIES[0]] == {"last_item": {"title": "Nike Shoe", "text": "Men"}, "previous_queries": []}
    assert all(context is None for query, context in drawn.items() if query != QUERIES[0])


def test_held_out_queries_are_measured_against_the_incumbent(whole: Path) -> None:
    before, *after = (json.loads((whole / f"phase-0{n}" / "measures.json").read_text()) for n in range(3))
    assert "improved" not in before
    for phase in after:
        assert phase["queries"] == 2
        better = [new > old for new, old in zip(phase["rewards"], before["rewards"], strict=True)]
        assert phase["improved"] == pytest.approx(sum(better) / 2)


@pytest.mark.parametrize(
    "step", ["training.loop.train_phase", "training.sampler.sample", "training.loop._write_lines"]
)
def test_a_killed_loop_goes_on_to_the_same_policy(
    config: LoopConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed at the second call of a step: the files of the first are there."""
    real = resolve_name(step)
    calls = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(step, killed)
        with pytest.raises(KeyboardInterrupt):
            Loop(config, material(), tmp_path).run()
    Loop(config, material(), tmp_path).run()
    for name in ("phase-01/pairs.jsonl", "phase-02/pairs.jsonl", "phase-02/measures.json"):
        assert (tmp_path / name).read_text() == (whole / name).read_text()
    one, other = (load_file(folder / "phase-02/policy/model.safetensors") for folder in (tmp_path, whole))
    assert all((one[name] == other[name]).all() for name in one)


def test_a_loop_that_is_done_does_nothing(config: LoopConfig, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    Loop(config, material(), whole).run()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_phases_between_measurements_are_not_measured(config: LoopConfig, tmp_path: Path) -> None:
    three = config.model_copy(update={"phases": 3, "measure_every": 2})
    Loop(three, material(), tmp_path).run()
    assert list(measured_phases(tmp_path)) == [0, 2, 3]
    draw_loop(tmp_path, 3, tmp_path / "phases.png")
    assert (tmp_path / "phases.png").stat().st_size > 5000


def test_the_steps_are_timed(whole: Path) -> None:
    for phase in (1, 2):
        timed = lines(whole / f"phase-0{phase}" / "seconds.jsonl")
        assert [line["step"] for line in timed] == ["sampling", "pass"]
        assert all(line["seconds"] > 0 for line in timed)


def test_a_phase_without_pairs_leaves_the_policy_as_it_was(
    config: LoopConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has none; with none in any there is nothing to publish, and that is said."""
    phases = iter((True, False))
    monkeypatch.setattr(training.loop, "pairs_in", lambda *args: pairs_in(*args) if next(phases) else [])
    assert Loop(config, material(), tmp_path / "some").run() == tmp_path / "some" / "phase-01" / "policy"
    assert (tmp_path / "some" / "phase-02" / "measures.json").exists()
    monkeypatch.setattr(training.loop, "pairs_in", lambda *_: [])
    with pytest.raises(PhaseError, match="no phase has pairs"):
        Loop(config, material(), tmp_path / "none").run()
