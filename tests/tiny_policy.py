"""A policy small enough for a test: random weights, the default checkpoint's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from app.registry.checkpoint import DEFAULT_CHECKPOINT

SIZES = {
    "vocab_size": 6000,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 32,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def write_policy(folder: Path, seed: int = 0, **sizes: Any) -> Path:
    """Write one into `folder`; `sizes` go over SIZES."""
    torch.manual_seed(seed)
    Qwen3ForCausalLM(Qwen3Config(**SIZES | sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEFAULT_CHECKPOINT / name, folder)
    return folder


def logprobs(model: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    """Of each token of the completion, unpadded and alone."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [float(logits[place, token]) for place, token in zip(places, completion, strict=True)]
