"""A relevance model small enough to compute by head: sums of token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from app.registry.checkpoint import describe_file

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "nurse", "night", "shift", "welder", "shirt")
IMAGE_DIM = 2


def counting_graph(*, image: bool = True) -> bytes:
    """embedding = (tokens, their ids' sum, types' sum, ...image); logit = (ids' sum + image's) / 10."""
    node = helper.make_node
    nodes = [
        node("Mul", ["ids", "mask"], ["kept"]),
        node("Cast", ["kept"], ["kept_float"], to=TensorProto.FLOAT),
        node("ReduceSum", ["kept_float", "axis"], ["sum"], keepdims=1),
        node("Cast", ["mask"], ["mask_float"], to=TensorProto.FLOAT),
        node("ReduceSum", ["mask_float", "axis"], ["count"], keepdims=1),
        node("Cast", ["types"], ["types_float"], to=TensorProto.FLOAT),
        node("ReduceSum", ["types_float", "axis"], ["typed"], keepdims=1),
        node("Concat", ["count", "sum", "typed", *(["image"] if image else [])], ["embedding"], axis=1),
        node("Div", ["sum", "ten"], ["tenth"]),
    ]
    if image:
        nodes += [
            node("ReduceSum", ["image", "axis"], ["seen"], keepdims=1),
            node("Add", ["tenth", "seen"], ["logit"]),
        ]
    else:
        nodes += [node("Identity", ["tenth"], ["logit"])]
    integers = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"])
        for name in ("ids", "mask", "types")
    ]
    images = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", IMAGE_DIM])] if image else []
    dim = 3 + IMAGE_DIM * image
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", dim]),
        helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["b", 1]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.float32([10]), "ten"),
    ]
    graph = helper.make_graph(nodes, "counting", [*integers, *images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    serialised: bytes = model.SerializeToString()
    return serialised


def write_model(folder: Path, graph: bytes, **changes: Any) -> Path:
    """A folder whose manifest describes `counting_graph`, with these fields of the manifest changed."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(graph)
    files = {name: describe_file(folder / name).model_dump() for name in ("model.onnx", "tokenizer.json")}
    inputs = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types", "image": "image"}
    head = {"file": "model.onnx", "inputs": inputs, "max_document_tokens": 3}
    manifest: dict[str, Any] = {
        "version": 1,
        "model_id": "counting",
        "files": files,
        "image_dim": IMAGE_DIM,
        "embedding": {
            **head, "output": "embedding", "document_type": 1, "calibration": {"scale": 0.01, "shift": 0.0},
        },
        "score": {**head, "output": "logit", "calibration": {"scale": 1.0, "shift": -1.0}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder
