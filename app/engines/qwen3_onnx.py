"""The ONNX graph of a Qwen3-type decoder, built in memory from `config.json` and `model.safetensors`.

One graph serves both phases. Shapes: B rows, S new tokens a row, C the cache's capacity in tokens.

    in   input_ids       [B, S] int64
         seqlens_k       [B]    int32    tokens in the cache after this run, minus one, per row
         total_length    []     int32    the largest of them, plus one
         last            [B, 1] int64    which of the S tokens is the row's last; the rest is padding
         past_{i}_key, past_{i}_value        [B, kv_heads, C, head_dim] float32
    out  logprobs        [B, vocab] float32, natural, of what follows each row's last token
         best, best_ids  [B, k] float32, int64: the largest of these; the lower id first among equals
         present_{i}_key, present_{i}_value  as past; bind both to one buffer and only S tokens are written

Two phases are legal: prompts (every cache empty, rows padded on the right to S tokens) and one decode step
(S = 1, rows of any length). The attention operator reads each row's own length, so a long row costs a short
one nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from app.errors import CheckpointError

if TYPE_CHECKING:
    from app.engines.qwen3_files import Array, Qwen3Config

CONTRIB = "com.microsoft"
OPSET = 21


def build_graph(
    config: Qwen3Config, weights: dict[str, Array], *, max_tokens: int, best: int
) -> tuple[bytes, dict[str, Array]]:
    """The graph, serialised, and the tensors it names as external data, contiguous.

    Weights stay outside because protobuf copies what it holds several times, with the interpreter's lock
    held: while a server loads another checkpoint, its requests would wait for that.

    Args:
        config: the sizes.
        weights: by their names in `model.safetensors`.
        max_tokens: the longest position it will see.
        best: k, at most the vocabulary.

    Raises:
        CheckpointError: a weight is missing.
    """
    try:
        graph = _Graph(config, weights, max_tokens, best)
        return graph.serialise(), graph.external
    except KeyError as error:
        raise CheckpointError(f"model.safetensors: {error} is missing") from error


class _Graph:
    """Appends nodes; each method returns the name of what it computes."""

    def __init__(self, config: Qwen3Config, weights: dict[str, Array], max_tokens: int, best: int) -> None:
        self.config, self.weights, self.best = config, weights, best
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.external: dict[str, Array] = {}
        half = config.head_dim // 2
        frequency = 1.0 / config.rope_theta ** (np.arange(half, dtype=np.float32) / half)
        angle = np.arange(max_tokens, dtype=np.float32)[:, None] * frequency.astype(np.float32)
        self.weight("cos", np.cos(angle))
        self.weight("sin", np.sin(angle))
        self.constant("split_heads", np.array([0, 0, -1, config.head_dim]))
        self.constant("join_heads", np.array([0, 0, -1]))

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """A tensor inside the graph: shapes are inferred from it."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, value: Array) -> str:
        """A tensor outside the graph."""
        self.external[name] = np.ascontiguousarray(value)
        tensor = TensorProto(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=value.shape,
            data_location=TensorProto.EXTERNAL,
        )
        tensor.external_data.add(key="location", value="weights")  # never opened: the session is given them
        self.initializers.append(tensor)
        return name

    def node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attrs))
        return outputs[0]

    def linear(self, x: str, out: str, *names: str) -> str:
        """One product for all the weights that read the same input: [.., in] x [in, sum of outs]."""
        joined = np.concatenate([self.weights[name] for name in names])
        return self.node("MatMul", [x, self.weight(f"{out}_weight", joined.T)], [out])

    def norm(self, x: str, skip: str | None, out: str, weight: str) -> tuple[str, str]:
        """RMSNorm of x + skip; returns (normalised, sum)."""
        scale, eps = self.weight(f"{out}_scale", self.weights[weight]), self.config.rms_norm_eps
        if skip is None:
            return self.node("SimplifiedLayerNormalization", [x, scale], [out], axis=-1, epsilon=eps), x
        outputs = [out, "", "", f"{out}_sum"]
        self.node("SkipSimplifiedLayerNormalization", [x, skip, scale], outputs, CONTRIB, epsilon=eps)
        return out, outputs[3]

    def attention(self, x: str, i: int, prefix: str) -> str:
        """Grouped-query attention; rotary positions and the cache are inside the operator.

        The operator also has inputs for the per-head norms, but no CPU kernel for them.
        """
        config, prefix = self.config, f"{prefix}.self_attn"
        qkv = self.linear(x, f"qkv_{i}", *(f"{prefix}.{part}_proj.weight" for part in "qkv"))
        heads = np.array([config.num_attention_heads, *[config.num_key_value_heads] * 2])
        sizes = self.constant(f"qkv_sizes_{i}", heads * config.head_dim)
        self.node("Split", [qkv, sizes], [f"{part}_{i}" for part in "qkv"], axis=-1)
        q, k = (self.head_norm(f"{part}_{i}", f"{prefix}.{part}_norm.weight") for part in "qk")
        past, present = f"past_{i}", f"present_{i}"
        attended = self.node(
            "GroupQueryAttention",
            [q, k, f"v_{i}", f"{past}_key", f"{past}_value", "seqlens_k", "total_length", "cos", "sin"],
            [f"attention_{i}", f"{present}_key", f"{present}_value"],
            CONTRIB,
            num_heads=config.num_attention_heads,
            kv_num_heads=config.num_key_value_heads,
            do_rotary=1,
        )
        return self.linear(attended, f"attention_out_{i}", f"{prefix}.o_proj.weight")

    def head_norm(self, x: str, weight: str) -> str:
        """RMSNorm within each head: [B, S, heads * head_dim] -> the same shape."""
        split = self.node("Reshape", [x, "split_heads"], [f"{x}_split"])
        normed, _ = self.norm(split, None, f"{x}_norm", weight)
        return self.node("Reshape", [normed, "join_heads"], [f"{x}_joined"])

    def mlp(self, x: str, i: int, prefix: str) -> str:
        """SwiGLU: down(silu(gate(x)) * up(x))."""
        names = (f"{prefix}.mlp.gate_proj.weight", f"{prefix}.mlp.up_proj.weight")
        both = self.linear(x, f"gate_up_{i}", *names)
        gate, up = f"gate_{i}", f"up_{i}"
        self.node("Split", [both], [gate, up], axis=-1, num_outputs=2)
        silu = self.node("QuickGelu", [gate], [f"silu_{i}"], CONTRIB, alpha=1.0)
        gated = self.node("Mul", [silu, up], [f"gated_{i}"])
        return self.linear(gated, f"mlp_out_{i}", f"{prefix}.mlp.down_proj.weight")

    def serialise(self) -> bytes:
        config = self.config
        embedding = self.weight("embedding", self.weights["model.embed_tokens.weight"])
        residual = self.node("Gather", [embedding, "input_ids"], ["embedded"])
        branch: str | None = None
        for i in range(config.num_hidden_layers):
            prefix = f"model.layers.{i}"
            x, residual = self.norm(residual, branch, f"norm_1_{i}", f"{prefix}.input_layernorm.weight")
            branch = self.attention(x, i, prefix)
            after = f"{prefix}.post_attention_layernorm.weight"
            x, residual = self.norm(residual, branch, f"norm_2_{i}", after)
            branch = self.mlp(x, i, prefix)
        x, _ = self.norm(residual, branch, "norm", "model.norm.weight")
        last = self.node("GatherND", [x, "last"], ["last_hidden"], batch_dims=1)
        head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        logits = self.linear(last, "logits", head)
        logprobs = self.node("LogSoftmax", [logits], ["logprobs"], axis=-1)
        self.node(
            "TopK", [logprobs, self.constant("k", np.array([self.best]))], ["best", "best_ids"], axis=-1
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        # The IR version is the lowest that has this opset, so that older runtimes still load it.
        model = helper.make_model(self.graph(), opset_imports=opsets, ir_version=10)
        serialised: bytes = model.SerializeToString()
        return serialised

    def graph(self) -> Any:
        config = self.config
        cache = ["rows", config.num_key_value_heads, "capacity", config.head_dim]
        layers = [f"{i}_{part}" for i in range(config.num_hidden_layers) for part in ("key", "value")]
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"]),
            helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["rows"]),
            helper.make_tensor_value_info("total_length", TensorProto.INT32, []),
            helper.make_tensor_value_info("last", TensorProto.INT64, ["rows", 1]),
            *(helper.make_tensor_value_info(f"past_{name}", TensorProto.FLOAT, cache) for name in layers),
        ]
        outputs = [
            helper.make_tensor_value_info("logprobs", TensorProto.FLOAT, ["rows", config.vocab_size]),
            helper.make_tensor_value_info("best", TensorProto.FLOAT, ["rows", self.best]),
            helper.make_tensor_value_info("best_ids", TensorProto.INT64, ["rows", self.best]),
            *(helper.make_tensor_value_info(f"present_{name}", TensorProto.FLOAT, cache) for name in layers),
        ]
        return helper.make_graph(self.nodes, "qwen3", inputs, outputs, self.initializers)
