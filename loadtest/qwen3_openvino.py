"""The same decoder as an OpenVINO model, built from safetensors without an exporter.

For the comparison in `bench_engines.py` only. Stateful, in the shape its paged-attention pass looks for:
ReadValue, Gather by beam_idx, Concat, Assign per key and value, and one ScaledDotProductAttention a layer.
"""

# ruff: noqa: D102 - no public methods

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset6
from openvino import opset13 as op

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.engines.qwen3_files import read_config, read_weights


def integers(values: Any) -> Any:
    """An int64 constant."""
    return op.constant(np.array(values, np.int64))


def real(value: float) -> Any:
    """A float32 constant."""
    return op.constant(np.float32(value))


class Decoder:
    """Builds the model; its inputs are input_ids, attention_mask, position_ids [B, S] and beam_idx [B]."""

    def __init__(self, checkpoint_dir: Path) -> None:
        self.config = read_config(checkpoint_dir)
        self.weights = read_weights(checkpoint_dir)
        self.sinks: list[Any] = []

    def linear(self, x: Any, name: str) -> Any:
        return op.matmul(x, op.constant(self.weights[f"{name}.weight"]), transpose_a=False, transpose_b=True)

    def norm(self, x: Any, name: str) -> Any:
        variance = op.reduce_mean(op.power(x, real(2)), integers([-1]), keep_dims=True)
        root = op.sqrt(op.add(variance, real(self.config.rms_norm_eps)))
        scale = op.constant(self.weights[f"{name}.weight"])
        return op.multiply(scale, op.multiply(x, op.divide(real(1), root)))

    def rotary(self, position_ids: Any) -> tuple[Any, Any]:
        """Cosine and sine, [B, 1, S, head_dim]."""
        dim = self.config.head_dim
        frequency = 1.0 / self.config.rope_theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
        column = op.constant(frequency.astype(np.float32).reshape(1, -1, 1))
        shape = op.concat([self.rows, integers([dim // 2]), integers([1])], 0)
        positions = op.convert(op.unsqueeze(position_ids, integers(1)), np.float32)
        angle = op.matmul(op.broadcast(column, shape), positions, transpose_a=False, transpose_b=False)
        angle = op.transpose(angle, integers([0, 2, 1]))
        both = op.concat([angle, angle], -1)
        return op.unsqueeze(op.cos(both), integers(1)), op.unsqueeze(op.sin(both), integers(1))

    def rotate(self, x: Any) -> Any:
        half, axis = self.config.head_dim // 2, integers([3])
        low = op.slice(x, integers([0]), integers([half]), integers([1]), axis)
        high = op.slice(x, integers([half]), integers([2**62]), integers([1]), axis)
        turned = op.concat([op.multiply(high, real(-1)), low], -1)
        return op.add(op.multiply(x, self.cos), op.multiply(turned, self.sin))

    def cached(self, new: Any, name: str) -> Any:
        """Append to the state and repeat each key-value head for its group of query heads."""
        heads, dim = self.config.num_key_value_heads, self.config.head_dim
        shape = ov.PartialShape([-1, heads, -1, dim])
        empty = op.broadcast(
            real(0), op.concat([self.rows, integers([heads]), integers([0]), integers([dim])], 0)
        )
        state = opset6.read_value(empty, name, ov.Type.f32, shape)
        whole = op.concat([op.gather(state, self.beam_idx, integers(0)), new], -2)
        self.sinks.append(opset6.assign(whole, name))
        groups = self.config.num_attention_heads // heads
        if groups == 1:
            return whole
        sizes = op.shape_of(whole)
        before = op.gather(sizes, integers([0, 1]), integers(0))
        after = op.gather(sizes, integers([2, 3]), integers(0))
        target = op.concat([before, integers([groups]), after], 0)
        repeated = op.broadcast(op.unsqueeze(whole, integers(2)), target, "BIDIRECTIONAL")
        merged = integers([0, self.config.num_attention_heads, -1, dim])
        return op.reshape(repeated, merged, special_zero=True)

    def heads(self, x: Any, norm: str | None) -> Any:
        split = op.reshape(x, integers([0, 0, -1, self.config.head_dim]), special_zero=True)
        return op.transpose(self.norm(split, norm) if norm else split, integers([0, 2, 1, 3]))

    def layer(self, x: Any, i: int) -> Any:
        prefix = f"model.layers.{i}"
        attention = f"{prefix}.self_attn"
        normed = self.norm(x, f"{prefix}.input_layernorm")
        q, k, v = (self.linear(normed, f"{attention}.{part}_proj") for part in "qkv")
        q = self.rotate(self.heads(q, f"{attention}.q_norm"))
        k = self.rotate(self.heads(k, f"{attention}.k_norm"))
        state = "past_key_values.{0}.{1}present.{0}.{1}"
        keys = self.cached(k, state.format(i, "key"))
        values = self.cached(self.heads(v, None), state.format(i, "value"))
        attended = op.scaled_dot_product_attention(q, keys, values, self.mask)
        joined = op.transpose(attended, integers([0, 2, 1, 3]))
        x = op.add(
            x, self.linear(op.reshape(joined, integers([0, 0, -1]), special_zero=True), f"{attention}.o_proj")
        )
        normed = self.norm(x, f"{prefix}.post_attention_layernorm")
        gate, up = (self.linear(normed, f"{prefix}.mlp.{part}_proj") for part in ("gate", "up"))
        return op.add(x, self.linear(op.multiply(op.swish(gate), up), f"{prefix}.mlp.down_proj"))

    def causal(self, input_ids: Any, attention_mask: Any) -> Any:
        """Additive mask, [B, 1, S, T]."""
        width = op.squeeze(op.gather(op.shape_of(input_ids), integers([1]), integers(0)), integers(0))
        total = op.squeeze(op.gather(op.shape_of(attention_mask), integers([1]), integers(0)), integers(0))
        key = op.unsqueeze(op.range(integers(0), total, integers(1), "i64"), integers(0))
        query = op.range(op.subtract(total, width), total, integers(1), "i64")
        past = op.less_equal(key, op.unsqueeze(query, integers(1)))
        real_token = op.convert(op.unsqueeze(attention_mask, integers([1, 2])), "boolean")
        return op.select(op.logical_and(past, real_token), real(0), real(-3.4e38))

    def model(self) -> Any:
        def parameter(name: str, rank: int, kind: type) -> Any:
            node = op.parameter([-1] * rank, kind, name=name)
            node.output(0).set_names({name})
            return node

        input_ids = parameter("input_ids", 2, np.int64)
        attention_mask = parameter("attention_mask", 2, np.int64)
        position_ids = parameter("position_ids", 2, np.int64)
        self.beam_idx = parameter("beam_idx", 1, np.int32)
        self.rows = op.gather(op.shape_of(input_ids), integers([0]), integers(0))
        self.cos, self.sin = self.rotary(position_ids)
        self.mask = self.causal(input_ids, attention_mask)
        embedding = op.constant(self.weights["model.embed_tokens.weight"])
        x = op.gather(embedding, input_ids, integers(0))
        for i in range(self.config.num_hidden_layers):
            x = self.layer(x, i)
        head = embedding
        if not self.config.tie_word_embeddings:
            head = op.constant(self.weights["lm_head.weight"])
        logits = op.matmul(self.norm(x, "model.norm"), head, transpose_a=False, transpose_b=True)
        logits.output(0).set_names({"logits"})
        parameters = [input_ids, attention_mask, position_ids, self.beam_idx]
        return ov.Model([op.result(logits)], self.sinks, parameters, "qwen3")
