"""What a relevance model's folder says of its graphs. Pure: bytes in, facts out.

A folder holds `manifest.json`, a tokenizer, and one or two ONNX graphs: both heads may be outputs of one.
Graphs of others are welcome: the manifest says which of their inputs is what.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contracts.manifest import CheckpointId, FileEntry, FileName

Role = Literal["input_ids", "attention_mask", "token_type_ids", "image"]
REQUIRED_ROLES: tuple[Role, ...] = ("input_ids", "attention_mask")
SMALLEST = 1e-6
"""No relevance is less: a ratio of two of them stays finite."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Part):
    """s = sigmoid(scale * x + shift) of a head's raw number x (Platt 1999)."""

    scale: float = Field(gt=0, allow_inf_nan=False)
    shift: float = Field(allow_inf_nan=False)

    def read(self, raw: float) -> float:
        """Return s in (0, 1], NaN where `raw` is."""
        if math.isnan(raw):
            return raw
        logit = self.scale * raw + self.shift
        if logit >= 0:
            return 1 / (1 + math.exp(-logit))
        odds = math.exp(logit)
        return max(SMALLEST, odds / (1 + odds))


class Head(_Part):
    """One output of a graph: where it is, what feeds it, how to read it.

    `inputs` maps roles to the graph's input names; `document_type` is the token type of a document that is
    read alone.
    """

    file: FileName
    output: str
    inputs: Mapping[Role, str]
    max_query_tokens: int = Field(default=32, ge=1)
    max_document_tokens: int = Field(default=64, ge=1)
    query_prefix: str = ""
    document_prefix: str = ""
    document_type: Literal[0, 1] = 0
    calibration: Calibration

    @model_validator(mode="after")
    def _complete(self) -> Head:
        if missing := [role for role in REQUIRED_ROLES if role not in self.inputs]:
            raise ValueError(f"inputs: name the graph's input for {', '.join(missing)}")
        return self


class RelevanceManifest(_Part):
    """Everything a server must know before it loads a graph.

    `embedding` is rawrank's head, `score` finerank's; at least one is there. `image_dim` is 0 where no graph
    reads an image; `vision` names the graph that makes an image's floats, where there is one. `training`
    holds free-form facts.
    """

    version: Literal[1]
    model_id: CheckpointId
    files: Mapping[FileName, FileEntry]
    tokenizer: FileName = "tokenizer.json"
    image_dim: int = Field(default=0, ge=0)
    vision: FileName | None = None
    embedding: Head | None = None
    score: Head | None = None
    training: Mapping[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> RelevanceManifest:
        heads = [head for head in (self.embedding, self.score) if head is not None]
        if not heads:
            raise ValueError("describe a head: embedding, score, or both")
        vision = () if self.vision is None else (self.vision,)
        for name in (self.tokenizer, *vision, *(head.file for head in heads)):
            if name not in self.files:
                raise ValueError(f"files: lists no {name}")
        if self.image_dim and not any("image" in head.inputs for head in heads):
            raise ValueError("image_dim: no head has an input for an image")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over all that the numbers are a function of: files, and how they are read."""
        heads = [
            None if head is None else head.model_dump(mode="json") for head in (self.embedding, self.score)
        ]
        facts = [{name: entry.sha256 for name, entry in self.files.items()}, heads, self.image_dim]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
