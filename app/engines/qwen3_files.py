"""A Qwen3-type checkpoint in its folder: sizes from config.json, float32 arrays from safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from app.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Qwen3Config:
    """The sizes that shape the graph; the names are those of `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool


def read_config(checkpoint_dir: Path) -> Qwen3Config:
    """Read `config.json`; raises `CheckpointError` for an architecture this graph does not cover."""
    path = checkpoint_dir / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    layers = set(raw.get("layer_types") or ["full_attention"])
    refused = {
        "model_type": raw.get("model_type") != "qwen3",
        "hidden_act": raw.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(raw.get("attention_bias")),
        "rope_type": rope.get("rope_type", "default") != "default",
        "layer_types": layers != {"full_attention"},
    }
    if any(refused.values()):
        names = ", ".join(name for name, bad in refused.items() if bad)
        raise CheckpointError(f"{path}: not a plain Qwen3 decoder: {names}")
    try:
        return Qwen3Config(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=raw["num_attention_heads"],
            num_key_value_heads=raw["num_key_value_heads"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
            max_position_embeddings=raw["max_position_embeddings"],
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta") or raw.get("rope_theta", 10_000.0),
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: {error} is missing") from error


def read_weights(checkpoint_dir: Path) -> dict[str, Array]:
    """Read `model.safetensors` as float32, bfloat16 widened exactly; raises `CheckpointError`."""
    path = checkpoint_dir / "model.safetensors"
    try:
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]  # the library has no types
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {name: _float32(entry, f"{path}: {name}") for name, entry in entries}


def _float32(entry: dict[str, Any], where: str) -> Array:
    match entry["dtype"]:
        case "BF16":  # the upper half of a float32
            flat = (np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
        case "F16":
            flat = np.frombuffer(entry["data"], "<f2").astype(np.float32)
        case "F32":
            flat = np.frombuffer(entry["data"], "<f4").astype(np.float32)
        case other:
            raise CheckpointError(f"{where}: {other} weights are not supported")
    return flat.reshape(entry["shape"])
