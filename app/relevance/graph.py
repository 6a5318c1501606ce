"""A head of an ONNX graph: rows in, one array out. The graph is held to what the manifest says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from app.errors import CheckpointError
from app.onnx_options import session_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.relevance.base import Floats
    from app.relevance.manifest import Head
    from app.relevance.texts import Row

INTEGER, FLOAT = "tensor(int64)", "tensor(float)"
RANKS = {"embedding": 2, "score": 1}


def open_session(file: Path, output: str, *, threads: int, provider: str) -> ort.InferenceSession:
    """Load the part of a graph that an output needs: two heads over one file compute nothing for each other.

    Args:
        file: the ONNX file.
        output: its name; one that the graph lacks leaves the graph whole, for `GraphHead` to refuse.
        threads: of one run.
        provider: ONNX Runtime's name, CPUExecutionProvider or CUDAExecutionProvider.

    Raises:
        CheckpointError: it is no graph this runtime can load, or the provider is not there.
    """
    if provider not in ort.get_available_providers():
        raise CheckpointError(
            f"{provider} is not in this onnxruntime, which has {', '.join(ort.get_available_providers())}; "
            "for CUDA install onnxruntime-gpu"
        )
    options = session_options(threads=threads)
    try:
        return ort.InferenceSession(_needed_for(output, file), options, providers=[provider])
    except Exception as error:  # the runtime's errors share no class
        raise CheckpointError(f"{file}: {error}") from error


class GraphHead:
    """Runs one head. Thread-safe."""

    def __init__(self, session: ort.InferenceSession, head: Head, *, kind: str, image_dim: int) -> None:
        self._session, self._head, self._image_dim = session, head, image_dim
        self._check(kind)

    def run(self, rows: Sequence[Row]) -> Floats:
        """Pad the rows to the longest and run them: [rows, dim] or [rows]."""
        width = max(len(row.ids) for row in rows)
        ids, mask, types = (np.zeros((len(rows), width), np.int64) for _ in range(3))
        for place, row in enumerate(rows):
            length = len(row.ids)
            ids[place, :length] = row.ids
            mask[place, :length] = 1
            types[place, :length] = row.types
        feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if "image" in self._head.inputs:
            image = np.zeros((len(rows), self._image_dim), np.float32)
            for place, row in enumerate(rows):
                if row.image is not None:
                    image[place] = row.image
            feeds["image"] = image
        named = {name: feeds[role] for role, name in self._head.inputs.items()}
        (found,) = self._session.run([self._head.output], named)
        return np.asarray(found, np.float32)

    def _check(self, kind: str) -> None:
        """Hold the graph to the manifest; raises CheckpointError that says what is missing."""
        where = f"{self._head.file}, head {kind!r}"
        inputs = {one.name: one for one in self._session.get_inputs()}
        described = {name: role for role, name in self._head.inputs.items()}
        if unknown := sorted(inputs.keys() - described.keys()):
            raise CheckpointError(f"{where}: the manifest does not say what the input {unknown[0]!r} is")
        if absent := sorted(described.keys() - inputs.keys()):
            raise CheckpointError(
                f"{where}: the graph has no input {absent[0]!r}, it has {', '.join(sorted(inputs))}"
            )
        for name, role in described.items():
            wanted = FLOAT if role == "image" else INTEGER
            if inputs[name].type != wanted:
                raise CheckpointError(f"{where}: the input {name!r} is a {inputs[name].type}, not a {wanted}")
            if role == "image" and inputs[name].shape[-1] not in (self._image_dim, None):
                raise CheckpointError(
                    f"{where}: the input {name!r} takes {inputs[name].shape[-1]} floats, image_dim says "
                    f"{self._image_dim}"
                )
        outputs = {one.name: one for one in self._session.get_outputs()}
        if self._head.output not in outputs:
            raise CheckpointError(
                f"{where}: the graph has no output {self._head.output!r}, it has {', '.join(sorted(outputs))}"
            )
        found = outputs[self._head.output]
        if found.type != FLOAT or len(found.shape) not in (RANKS[kind], 2):
            raise CheckpointError(
                f"{where}: the output {found.name!r} is a {found.type} of shape {found.shape}; "
                f"{'[rows, dim]' if kind == 'embedding' else '[rows] or [rows, 1]'} of float is needed"
            )


def _needed_for(output: str, file: Path) -> bytes | str:
    """The graph without what the output does not need; the file where there is nothing to leave out."""
    model = onnx.load(file, load_external_data=False)
    others = [one for one in model.graph.output if one.name != output]
    nested = any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)
    if not others or len(others) == len(model.graph.output) or nested:
        return str(file)
    wanted, kept = {output}, []
    for node in reversed(model.graph.node):  # sorted: what a node reads was written before it
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    weights = [weight for weight in model.graph.initializer if weight.name in wanted]
    outputs = [one for one in model.graph.output if one.name == output]
    inputs = list(model.graph.input)
    part = onnx.helper.make_graph(kept[::-1], model.graph.name, inputs, outputs, weights)
    whole = onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    serialised: bytes = whole.SerializeToString()
    return serialised
