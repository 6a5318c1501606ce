"""The loop's engine over vLLM: what it reports of a draw is what the model thinks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_policy import logprobs, write_policy
from transformers import AutoModelForCausalLM

from app.contracts.prompt import render
from app.engines.base import Completion
from app.engines.text import read_tokenizer
from app.engines.vllm import VllmEngine
from app.relevance.base import Content
from training.config import SampleConfig
from training.datasets.instances import Instance, Seen
from training.policy_engine import policy_engine
from training.sampling import sample

# vLLM's kernels for CPUs have no smaller heads.
SIZES = {"head_dim": 64}
CONFIG = SampleConfig(
    engine="vllm",
    num_generations=6,
    temperature=0.7,
    top_p=0.8,
    max_tokens=12,
    vllm_arguments={"dtype": "float32", "enforce_eager": True},
)
INSTANCES = [
    Instance(query, (Seen(Content("d"), 1.0),), (), ()) for query in ("rn", "mig welder", "night clerk")
]


def drawn(policy: Path) -> Sequence[Sequence[Completion]]:
    async def main() -> Sequence[Sequence[Completion]]:
        engine = policy_engine(policy, CONFIG, threads=1)
        assert isinstance(engine, VllmEngine)
        await engine.start()
        try:
            return await sample(engine, INSTANCES, CONFIG, seed=2)
        finally:
            await engine.close()

    return asyncio.run(main())


def test_each_phase_draws_from_its_own_policy_and_reports_its_log_probabilities(tmp_path: Path) -> None:
    """The first policy's engine has gone when the second's comes, as from phase to phase."""
    found = []
    for seed in (0, 1):
        policy = write_policy(tmp_path / str(seed), seed, **SIZES)
        model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
        tokenizer, _ = read_tokenizer(policy)
        for instance, completions in zip(INSTANCES, drawn(policy), strict=True):
            assert len(completions) == CONFIG.num_generations
            prompt = tokenizer.encode(render(instance.query), add_special_tokens=False).ids
            for one in completions:
                expected = sum(logprobs(model, prompt, list(one.token_ids)))
                assert one.logprob == pytest.approx(expected, abs=1e-3)
            found.append({one.token_ids for one in completions})
    assert found[:3] != found[3:]
    assert all(len(tokens) > 1 for tokens in found)
