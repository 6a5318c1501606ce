"""The engine over transformers: the embedded engine's draws, the model's own log-probabilities."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_policy import logprobs, write_policy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from app.contracts.prompt import render
from app.engines.base import Completion, Engine, GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.engines.text import read_tokenizer
from app.errors import EngineFailedError, EngineUnavailableError, InputTooLongError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from training.transformers_engine import TransformersEngine

QUERIES = ("truck hopper", "registerd nurse", "bluetoth headphones", "laptop", "er doctor on night shifts")
SAMPLE = GenerationRequest(
    "", mode="sample", num_completions=6, max_tokens=12, temperature=0.9, top_p=0.9, seed=4
)


def over(folder: Path) -> TransformersEngine:
    return TransformersEngine(folder, weights_digest="d" * 64)


def requests_like(base: GenerationRequest) -> list[GenerationRequest]:
    return [replace(base, prompt=render(query), seed=number) for number, query in enumerate(QUERIES)]


def answers(
    engine: Engine, requests: Sequence[GenerationRequest], *, at_once: bool = True
) -> list[tuple[Completion, ...]]:
    async def main() -> list[tuple[Completion, ...]]:
        await engine.start()
        if at_once:
            found = await asyncio.gather(*map(engine.generate, requests))
        else:
            found = [await engine.generate(request) for request in requests]
        await engine.close()
        return [generation.completions for generation in found]

    return asyncio.run(main())


def tokens(found: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in completions] for completions in found]


def test_greedy_writes_the_golden_tokens() -> None:
    golden = load_checkpoint(DEFAULT_CHECKPOINT).golden
    requests = [
        GenerationRequest(one.prompt, mode="greedy", num_completions=3, max_tokens=24) for one in golden
    ]
    found = tokens(answers(over(DEFAULT_CHECKPOINT), requests))
    assert found == [[one.token_ids] for one in golden]


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_it_draws_what_the_embedded_engine_draws(top_p: float) -> None:
    requests = requests_like(replace(SAMPLE, top_p=top_p))
    here = answers(over(DEFAULT_CHECKPOINT), requests)
    there = answers(EmbeddedEngine(DEFAULT_CHECKPOINT, weights_digest="d" * 64), requests)
    assert tokens(here) == tokens(there)
    assert len({one.token_ids for completions in here for one in completions}) > len(QUERIES)
    for ours, theirs in zip(sum(here, ()), sum(there, ()), strict=True):
        assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason)
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)


def test_a_draw_depends_on_seed_and_prompt_alone() -> None:
    requests = requests_like(SAMPLE)
    together = tokens(answers(over(DEFAULT_CHECKPOINT), requests))
    assert tokens(answers(over(DEFAULT_CHECKPOINT), requests, at_once=False)) == together
    assert tokens(answers(over(DEFAULT_CHECKPOINT), requests[::-1])) == together[::-1]
    others = [replace(request, seed=request.seed + 100) for request in requests]
    assert tokens(answers(over(DEFAULT_CHECKPOINT), others)) != together


def test_requests_of_all_kinds_may_wait_at_once() -> None:
    kinds = [SAMPLE, replace(SAMPLE, mode="greedy"), replace(SAMPLE, num_completions=2, max_tokens=3)]
    requests = [request for kind in kinds for request in requests_like(kind)]
    found = answers(over(DEFAULT_CHECKPOINT), requests)
    assert [len(completions) for completions in found] == [6] * 5 + [1] * 5 + [2] * 5
    assert all(len(one.token_ids) <= 3 for completions in found[10:] for one in completions)
    assert {one.finish_reason for completions in found for one in completions} == {"stop", "length"}


def write_llama(folder: Path) -> Path:
    """A decoder that the embedded engine does not read."""
    write_policy(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(vocab_size=6000, max_position_embeddings=256, **sizes)
    model = LlamaForCausalLM(config)
    model.generation_config.repetition_penalty = 5.0  # a checkpoint's own habits are no part of the policy
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [write_policy, write_llama])
@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_logprob_is_the_models_of_all_tokens(tmp_path: Path, make: Any, mode: Any) -> None:
    """At temperature 1 and without a nucleus, whatever was drawn with."""
    policy = make(tmp_path)
    requests = requests_like(replace(SAMPLE, mode=mode, temperature=0.7))
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tokenizer, _ = read_tokenizer(policy)
    for request, completions in zip(requests, answers(over(policy), requests), strict=True):
        prompt = tokenizer.encode(request.prompt, add_special_tokens=False).ids
        for one in completions:
            expected = sum(logprobs(model, prompt, list(one.token_ids)))
            assert one.logprob == pytest.approx(expected, abs=1e-3)
        assert [one.logprob for one in completions] == sorted(one.logprob for one in completions)[::-1]


def test_what_it_cannot_do_is_a_typed_error(tmp_path: Path) -> None:
    write_policy(tmp_path)
    with pytest.raises(EngineUnavailableError, match="not running"):
        asyncio.run(over(tmp_path).generate(requests_like(SAMPLE)[0]))
    with pytest.raises(EngineFailedError, match="no beams"):
        answers(over(tmp_path), requests_like(replace(SAMPLE, mode="beam")))
    with pytest.raises(InputTooLongError):
        answers(over(tmp_path), requests_like(replace(SAMPLE, max_tokens=255)))
    broken = shutil.copytree(tmp_path, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    with pytest.raises(EngineUnavailableError, match="broken"):
        answers(over(broken), [])


def test_a_failure_is_that_of_its_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = over(write_policy(tmp_path))

    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    async def main() -> list[Any]:
        await engine.start()
        with monkeypatch.context() as patch:
            patch.setattr(engine._model, "generate", out_of_memory)
            failed = await asyncio.gather(
                *map(engine.generate, requests_like(SAMPLE)), return_exceptions=True
            )
        assert all(isinstance(one, EngineFailedError) and "no memory" in str(one) for one in failed)
        after = await asyncio.gather(*map(engine.generate, requests_like(SAMPLE)))
        await engine.close()
        return after

    assert len(asyncio.run(main())) == len(QUERIES)


def test_closing_answers_everybody(tmp_path: Path) -> None:
    engine = over(write_policy(tmp_path))

    async def main() -> list[Any]:
        await engine.start()
        tasks = [asyncio.ensure_future(engine.generate(request)) for request in requests_like(SAMPLE)]
        await asyncio.sleep(0)
        await engine.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(one, EngineUnavailableError) for one in asyncio.run(main()))
