"""A policy small enough for a test: random weights, and the tokenizer of the default checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from app.registry.checkpoint import DEFAULT_CHECKPOINT


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
