"""The ONNX graph of the relevance model, with weights in 8 bits. Shapes: B rows, S tokens, H the hidden size.

    in   input_ids, attention_mask, token_type_ids  [B, S] int64
         image                                      [B, IMAGE_DIM] float32; zeros for none
    out  embedding                                  [B, H] float32, rows of length 1
         logit                                      [B] float32

Matrices are quantised in blocks of BLOCK weights with a scale each, and so are the activations, row by row,
when they are multiplied (`MatMulNBits`): a row's result does not depend on what else is in the batch, as it
would where one scale is taken over all rows. Word embeddings have a scale a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from training.relevance import IMAGE_POSITION, RelevanceModel
from training.vision import IMAGE_DIM

CONTRIB, OPSET = "com.microsoft", 21
BLOCK = 128
INT8_ACTIVATIONS = 4
"""`accuracy_level` of MatMulNBits: activations in 8 bits too."""

Array = npt.NDArray[np.float32]


def build_graph(model: RelevanceModel, *, quantised: bool = True) -> bytes:
    """Serialise the graph with its weights."""
    weights = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    return _Graph(weights, model.bert.config, quantised=quantised).serialise()


class _Graph:
    """Appends nodes; each method returns the name of what it computes."""

    def __init__(self, weights: dict[str, Array], config: Any, *, quantised: bool) -> None:
        self.weights, self.config, self.quantised = weights, config, quantised
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attrs))
        return outputs[0]

    def product(self, x: str, out: str, matrix: Array) -> str:
        """[.., inputs] by a matrix [outputs, inputs], without bias."""
        if not self.quantised:
            return self.node("MatMul", [x, self.constant(f"{out}_matrix", matrix.T)], [out])
        codes, scales = quantise(matrix)
        names = [self.constant(f"{out}_codes", codes), self.constant(f"{out}_scales", scales)]
        rows, columns = matrix.shape
        sizes = {"N": rows, "K": columns, "bits": 8, "block_size": BLOCK}
        return self.node("MatMulNBits", [x, *names], [out], CONTRIB, accuracy_level=INT8_ACTIVATIONS, **sizes)

    def words(self) -> str:
        """Word embeddings, [B, S, H]."""
        table = self.weights["bert.embeddings.word_embeddings.weight"]
        if not self.quantised:
            return self.node("Gather", [self.constant("word_table", table), "input_ids"], ["words"])
        scale = np.abs(table).max(axis=1, keepdims=True) / 127
        codes = np.round(table / np.maximum(scale, 1e-12)).astype(np.int8)
        self.node("Gather", [self.constant("word_codes", codes), "input_ids"], ["word_code"])
        self.node("Cast", ["word_code"], ["word_float"], to=TensorProto.FLOAT)
        self.node(
            "Gather", [self.constant("word_scales", scale.astype(np.float32)), "input_ids"], ["word_scale"]
        )
        return self.node("Mul", ["word_float", "word_scale"], ["words"])

    def embeddings(self) -> str:
        """Words, positions and types, then the image as one more token, normalised: [B, S + 1, H]."""
        positions = self.weights["bert.embeddings.position_embeddings.weight"]
        types = self.weights["bert.embeddings.token_type_embeddings.weight"]
        self.node("Shape", ["input_ids"], ["tokens"], start=1, end=2)
        start = self.constant("zero", np.array([0]))
        self.node("Slice", [self.constant("positions", positions), start, "tokens"], ["position"])
        self.node("Gather", [self.constant("types", types), "token_type_ids"], ["type"])
        self.node("Add", [self.words(), "position"], ["placed"])
        self.node("Add", ["placed", "type"], ["text"])
        bias = self.weights["image.bias"] + positions[IMAGE_POSITION] + types[1]
        matrix = self.constant("image_matrix", self.weights["image.weight"].T)
        self.node("Gemm", ["image", matrix, self.constant("image_bias", bias)], ["image_row"])
        self.node("Unsqueeze", ["image_row", self.constant("one", np.array([1]))], ["image_token"])
        self.node("Concat", ["text", "image_token"], ["sum"], axis=1)
        prefix = "bert.embeddings.LayerNorm"
        scale, shift = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.node(
            "LayerNormalization", ["sum", scale, shift], ["x"], epsilon=self.config.layer_norm_eps
        )

    def mask(self) -> None:
        """`mask` [B, S + 1] int32: the image's place counts where the image is not zero."""
        self.node("Abs", ["image"], ["image_size"])
        self.node("ReduceMax", ["image_size", "one"], ["image_largest"], keepdims=1)
        self.node("Greater", ["image_largest", self.constant("nothing", np.zeros((), np.float32))], ["seen"])
        self.node("Cast", ["seen"], ["seen_int"], to=TensorProto.INT32)
        self.node("Cast", ["attention_mask"], ["text_mask"], to=TensorProto.INT32)
        self.node("Concat", ["text_mask", "seen_int"], ["mask"], axis=1)

    def layer(self, x: str, i: int) -> str:
        prefix = f"bert.encoder.layer.{i}"
        names = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        matrix = np.concatenate([self.weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        qkv = self.product(x, f"qkv_{i}", matrix)
        self.node("Split", [qkv], [f"q_{i}", f"k_{i}", f"v_{i}"], axis=-1, num_outputs=3)
        attended = self.node(
            "MultiHeadAttention",
            [f"q_{i}", f"k_{i}", f"v_{i}", self.constant(f"qkv_bias_{i}", bias), "mask"],
            [f"attended_{i}"],
            CONTRIB,
            num_heads=self.config.num_attention_heads,
        )
        x = self.residual(attended, x, f"{prefix}.attention.output", f"attention_{i}")
        up = self.product(x, f"up_{i}", self.weights[f"{prefix}.intermediate.dense.weight"])
        gelu_bias = self.weight(f"{prefix}.intermediate.dense.bias")
        active = self.node("BiasGelu", [up, gelu_bias], [f"active_{i}"], CONTRIB)
        return self.residual(active, x, f"{prefix}.output", f"output_{i}")

    def residual(self, x: str, skip: str, prefix: str, out: str) -> str:
        """LayerNorm(skip + x by the matrix + bias)."""
        product = self.product(x, f"{out}_product", self.weights[f"{prefix}.dense.weight"])
        names = [f"{prefix}.LayerNorm.weight", f"{prefix}.LayerNorm.bias", f"{prefix}.dense.bias"]
        return self.node(
            "SkipLayerNormalization",
            [product, skip, *map(self.weight, names)],
            [out],
            CONTRIB,
            epsilon=self.config.layer_norm_eps,
        )

    def serialise(self) -> bytes:
        self.constant("last_axis", np.array([-1]))
        x = self.embeddings()
        self.mask()
        for i in range(self.config.num_hidden_layers):
            x = self.layer(x, i)
        self.pool(x)
        self.node("Gather", [x, self.constant("first", np.array(0))], ["first_token"], axis=1)
        inner = self.product("first_token", "score_0", self.weights["score.0.weight"])
        active = self.node("BiasGelu", [inner, self.weight("score.0.bias")], ["score_1"], CONTRIB)
        matrix = self.constant("score_matrix", self.weights["score.2.weight"].T)
        self.node("Gemm", [active, matrix, self.weight("score.2.bias")], ["score_2"])
        self.node("Squeeze", ["score_2", "one"], ["logit"])
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(self.graph(), opset_imports=opsets, ir_version=10)
        serialised: bytes = model.SerializeToString()
        return serialised

    def pool(self, x: str) -> None:
        """`embedding`: the mean over the places that count, of length 1."""
        self.node("Cast", ["mask"], ["mask_float"], to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["mask_float", "last_axis"], ["mask_column"])
        self.node("Mul", [x, "mask_column"], ["counted"])
        self.node("ReduceSum", ["counted", "one"], ["summed"], keepdims=0)
        self.node("ReduceSum", ["mask_float", "one"], ["count"], keepdims=1)
        self.node("Div", ["summed", "count"], ["mean"])
        self.node("LpNormalization", ["mean"], ["embedding"], axis=-1, p=2)

    def graph(self) -> Any:
        integers = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", IMAGE_DIM])
        outputs = [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["rows", self.config.hidden_size]),
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["rows"]),
        ]
        return helper.make_graph(self.nodes, "relevance", [*integers, image], outputs, self.initializers)


def quantise(matrix: Array) -> tuple[npt.NDArray[np.uint8], Array]:
    """Codes [outputs, blocks, BLOCK] around 128 and scales [outputs, blocks] of [outputs, inputs]."""
    outputs, inputs = matrix.shape
    blocks = matrix.reshape(outputs, inputs // BLOCK, BLOCK)
    scales = np.abs(blocks).max(axis=2) / 127
    codes = np.round(blocks / np.maximum(scales, 1e-12)[:, :, None]) + 128
    return codes.astype(np.uint8), scales.astype(np.float32)
