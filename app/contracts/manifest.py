"""The manifest of a checkpoint: what its files are, and where they come from. Pure: bytes in, facts out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
COMPUTED_BY = ("config.json", "model.safetensors", "tokenizer.json")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CHECKPOINT_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CheckpointId = Annotated[str, StringConstraints(pattern=CHECKPOINT_ID)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class FileEntry(BaseModel):
    """One file of the checkpoint: its SHA-256 (hex) and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Digest
    bytes: int = Field(ge=0)


class GoldenPrompt(BaseModel):
    """A prompt and the tokens that greedy decoding gives for it, as the trainer saw them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    token_ids: tuple[int, ...]


class Manifest(BaseModel):
    """Everything a server must know before it loads a byte of the weights.

    `files` maps plain file names (no folders) to digests. `training` is the configuration and data window
    of the run, as free-form facts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    checkpoint_id: CheckpointId
    architecture: Literal["Qwen3ForCausalLM"]
    prompt_version: int
    parameters: int = Field(gt=0)
    parent: str | None
    files: Mapping[FileName, FileEntry]
    golden: tuple[GoldenPrompt, ...]
    training: Mapping[str, object]

    @property
    def weights_digest(self) -> str:
        """SHA-256 over names and digests of all files: weights, tokenizer, calibration; any change shows."""
        return self._digest(self.files)

    @property
    def model_digest(self) -> str:
        """SHA-256 over what the tokens of an answer are a function of: sizes, weights, tokenizer."""
        return self._digest([name for name in COMPUTED_BY if name in self.files])

    def _digest(self, names: Iterable[str]) -> str:
        lines = [f"{name}:{self.files[name].sha256}" for name in sorted(names)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
