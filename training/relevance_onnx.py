"""The ONNX graph of the relevance model, with weights in 8 bits. Shapes: B rows, S tokens, H the hidden size.

    in   input_ids, attention_mask, token_type_ids  [B, S] int64
         image                                      [B, IMAGE_DIM] float32; zeros for none
    out  embedding                                  [B, H] float32, rows of length 1
         logit                                      [B] float32

Matrices are multiplied as integers: weights with a scale for each output, activations in the fixed range of
their layer (`training.quantised`). Word embeddings have a scale a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto, helper, numpy_helper

from training.quantised import QuantisedLinear
from training.relevance import FAR, IMAGE_POSITION, JOINT_LAYERS, RelevanceModel
from training.vision import IMAGE_DIM

CONTRIB, OPSET = "com.microsoft", 21

Array = npt.NDArray[np.float32]


def build_graph(model: RelevanceModel, *, quantised: bool = True) -> bytes:
    """Serialise the graph with its weights; not quantised it computes as before training in 8 bits."""
    return _Graph(model, quantised=quantised).serialise()


class _Graph:
    """Appends nodes; each method returns the name of what it computes."""

    def __init__(self, model: RelevanceModel, *, quantised: bool) -> None:
        self.weights = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
        self.layers = {
            name: layer for name, layer in model.named_modules() if isinstance(layer, QuantisedLinear)
        }
        self.config, self.quantised = model.bert.config, quantised
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.constant("one", np.array([1]))
        self.constant("two", np.array([2]))
        self.constant("at_least", np.ones((), np.float32))

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attrs))
        return outputs[0]

    def linear(self, x: str, out: str, *names: str) -> str:
        """Multiply x by the layers `names`, which read the same input, side by side, with their biases."""
        layers = [self.layers[name] for name in names]
        weights = np.concatenate([_array(layer.weight) for layer in layers])
        bias = self.constant(f"{out}_bias", np.concatenate([_array(layer.bias) for layer in layers]))
        if not self.quantised:
            self.node("MatMul", [x, self.constant(f"{out}_matrix", weights.T)], [f"{out}_product"])
            return self.node("Add", [f"{out}_product", bias], [out])
        scales = np.concatenate([_array(layer.weight_scale) for layer in layers])
        codes = np.round(weights / scales[:, None]).astype(np.int8)
        level = self.constant(f"{out}_level", _array(layers[0].activation_scale))
        zero = self.constant(f"{out}_zero", _array(layers[0].zero_point).astype(np.uint8))
        inputs = [
            self.node("QuantizeLinear", [x, level, zero], [f"{out}_input"]),
            self.constant(f"{out}_codes", codes.T),
            level,
            self.constant(f"{out}_scales", scales),
            zero,
            self.constant(f"{out}_zeros", np.zeros(len(scales), np.int8)),
            bias,
        ]
        return self.node("MatMulIntegerToFloat", inputs, [out], CONTRIB)

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
        self.node("Gather", [self.constant("positions", positions), self.places()], ["position"])
        self.node("Gather", [self.constant("types", types), "token_type_ids"], ["type"])
        self.node("Add", [self.words(), "position"], ["placed"])
        self.node("Add", ["placed", "type"], ["text"])
        bias = self.weights["image.bias"] + positions[IMAGE_POSITION] + types[1]
        matrix = self.constant("image_matrix", self.weights["image.weight"].T)
        self.node("Gemm", ["image", matrix, self.constant("image_bias", bias)], ["image_row"])
        self.node("Unsqueeze", ["image_row", "one"], ["image_token"])
        self.node("Concat", ["text", "image_token"], ["sum"], axis=1)
        prefix = "bert.embeddings.LayerNorm"
        scale, shift = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.node(
            "LayerNormalization", ["sum", scale, shift], ["x"], epsilon=self.config.layer_norm_eps
        )

    def places(self) -> str:
        """Positions of the text, [B, S]: a document's count from 0."""
        self.node("Shape", ["input_ids"], ["tokens"], start=1)
        zero = self.constant("zero", np.array(0))
        self.node("Squeeze", ["tokens"], ["width"])
        self.node("Range", [zero, "width", self.constant("step", np.array(1))], ["counted"])
        self.node("Mul", ["attention_mask", "token_type_ids"], ["of_document"])
        self.node("Sub", ["attention_mask", "of_document"], ["of_query"])
        self.node("ReduceSum", ["of_query", "one"], ["before"], keepdims=1)
        self.node("Mul", ["token_type_ids", "before"], ["moved"])
        return self.node("Sub", ["counted", "moved"], ["place"])

    def alone(self) -> None:
        """`alone` [B, 1, S + 1, S + 1]: what is added to attention below the joint layers."""
        self.node("Shape", ["image"], ["rows"], end=1)
        self.node("Concat", ["rows", "one"], ["column"], axis=0)
        self.node("Expand", [self.constant("document_type", np.array([1])), "column"], ["image_type"])
        self.node("Concat", ["token_type_ids", "image_type"], ["kinds"], axis=1)
        self.node("Unsqueeze", ["kinds", self.constant("from", np.array([1, 3]))], ["from_kind"])
        self.node("Unsqueeze", ["kinds", self.constant("to", np.array([1, 2]))], ["to_kind"])
        self.node("Equal", ["from_kind", "to_kind"], ["alike"])
        zero = self.constant("open", np.zeros((), np.float32))
        self.node("Where", ["alike", zero, self.constant("far", np.array(FAR, np.float32))], ["alone"])

    def mask(self) -> None:
        """`mask` [B, S + 1] int32: the image's place counts where the image is not zero."""
        self.node("Abs", ["image"], ["image_size"])
        self.node("ReduceMax", ["image_size", "one"], ["image_largest"], keepdims=1)
        self.node("Greater", ["image_largest", self.constant("nothing", np.zeros((), np.float32))], ["seen"])
        self.node("Cast", ["seen"], ["seen_int"], to=TensorProto.INT32)
        self.node("Cast", ["attention_mask"], ["text_mask"], to=TensorProto.INT32)
        self.node("Concat", ["text_mask", "seen_int"], ["mask"], axis=1)

    def layer(self, x: str, i: int) -> str:
        """One layer of the encoder, [B, S + 1, H]."""
        prefix = f"bert.encoder.layer.{i}"
        parts = (f"{prefix}.attention.self.{part}" for part in ("query", "key", "value"))
        qkv = self.linear(x, f"qkv_{i}", *parts)
        self.node("Split", [qkv], [f"q_{i}", f"k_{i}", f"v_{i}"], axis=-1, num_outputs=3)
        separate = i < self.config.num_hidden_layers - JOINT_LAYERS
        attended = self.node(
            "MultiHeadAttention",
            [f"q_{i}", f"k_{i}", f"v_{i}", "", "mask", *(["alone"] if separate else [])],
            [f"attended_{i}"],
            CONTRIB,
            num_heads=self.config.num_attention_heads,
        )
        x = self.residual(attended, x, f"{prefix}.attention.output", f"attention_{i}")
        up = self.linear(x, f"up_{i}", f"{prefix}.intermediate.dense")
        active = self.node("Gelu", [up], [f"active_{i}"])
        return self.residual(active, x, f"{prefix}.output", f"output_{i}")

    def residual(self, x: str, skip: str, prefix: str, out: str) -> str:
        """LayerNorm(skip + the layer of x)."""
        product = self.linear(x, f"{out}_linear", f"{prefix}.dense")
        norms = [self.weight(f"{prefix}.LayerNorm.{part}") for part in ("weight", "bias")]
        epsilon = self.config.layer_norm_eps
        return self.node("SkipLayerNormalization", [product, skip, *norms], [out], CONTRIB, epsilon=epsilon)

    def serialise(self) -> bytes:
        x = self.embeddings()
        self.mask()
        self.alone()
        for i in range(self.config.num_hidden_layers):
            x = self.layer(x, i)
        self.mean(x, "mask", "embedding")
        self.score(x)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(self.graph(), opset_imports=opsets, ir_version=10)
        serialised: bytes = model.SerializeToString()
        return serialised

    def score(self, x: str) -> None:
        """`logit`: the means of query and document compared."""
        self.node("Cast", ["token_type_ids"], ["text_types"], to=TensorProto.INT32)
        self.node("Mul", ["text_mask", "text_types"], ["document_text"])
        self.node("Concat", ["document_text", "seen_int"], ["document_mask"], axis=1)
        self.node("Sub", ["mask", "document_mask"], ["query_mask"])
        self.mean(x, "query_mask", "query")
        self.mean(x, "document_mask", "document")
        self.node("Mul", ["query", "document"], ["product"])
        root = self.constant("root", np.array(self.config.hidden_size**0.5, np.float32))
        self.node("Mul", ["product", root], ["large_product"])
        self.node("Sub", ["query", "document"], ["difference"])
        self.node("Abs", ["difference"], ["distance"])
        self.node("Concat", ["large_product", "distance"], ["features"], axis=1)
        inner = self.linear("features", "score_0", "score.0")
        active = self.node("Gelu", [inner], ["score_1"])
        matrix = self.constant("score_matrix", self.weights["score.2.weight"].T)
        self.node("Gemm", [active, matrix, self.weight("score.2.bias")], ["score_2"])
        self.node("ReduceSum", ["product", "one"], ["cosine_sum"], keepdims=1)
        self.node("Mul", ["cosine_sum", self.weight("cosine")], ["cosine_part"])
        self.node("Add", ["score_2", "cosine_part"], ["logit_column"])
        self.node("Squeeze", ["logit_column", "one"], ["logit"])

    def mean(self, x: str, mask: str, out: str) -> str:
        """The mean over the places of a mask, of length 1: [B, H]."""
        self.node("Cast", [mask], [f"{out}_float"], to=TensorProto.FLOAT)
        self.node("Unsqueeze", [f"{out}_float", "two"], [f"{out}_column"])
        self.node("Mul", [x, f"{out}_column"], [f"{out}_counted"])
        self.node("ReduceSum", [f"{out}_counted", "one"], [f"{out}_sum"], keepdims=0)
        self.node("ReduceSum", [f"{out}_float", "one"], [f"{out}_places"], keepdims=1)
        self.node("Max", [f"{out}_places", "at_least"], [f"{out}_count"])
        self.node("Div", [f"{out}_sum", f"{out}_count"], [f"{out}_mean"])
        return self.node("LpNormalization", [f"{out}_mean"], [out], axis=-1, p=2)

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


def _array(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().float().numpy())
