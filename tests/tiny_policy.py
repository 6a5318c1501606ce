"""A policy small enough for a test (random weights, the default checkpoint's tokenizer), and pairs for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from training.mpo import PairIds

END = 1


def write_policy(folder: Path, seed: int = 0) -> Path:
    """Write one into `folder`."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=6000,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEFAULT_CHECKPOINT / name, folder)
    return folder


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


def logprobs(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    """Of each token of the completion, unpadded and alone."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [float(logits[place, token]) for place, token in zip(places, completion, strict=True)]
