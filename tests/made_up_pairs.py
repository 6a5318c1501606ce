"""Pairs to train a tiny policy on."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from tiny_policy import logprobs
from transformers import AutoModelForCausalLM

from training.mpo import PairIds

END = 1


def made_up_pairs(policy: Path, count: int) -> list[PairIds]:
    """Made-up ones, with what the policy thinks of them."""
    rng = Random(3)
    reference = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)

    def ids(longest: int) -> list[int]:
        return [rng.randrange(7, 6000) for _ in range(rng.randint(1, longest))]

    def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> PairIds:
        known = (sum(logprobs(reference, prompt, completion)) for completion in (chosen, rejected))
        return PairIds(prompt, chosen, rejected, *known, margin=1.0)

    return [pair(ids(6), [*ids(4), END], [*ids(4), END]) for _ in range(count)]
