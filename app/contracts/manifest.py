"""The manifest of a checkpoint: what its files are, and where they come from. Pure: bytes in, facts out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2
COMPUTED_BY = ("config.json", "model.safetensors", "tokenizer.json")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CHECKPOINT_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CheckpointId = Annotated[str, StringConstraints(pattern=CHECKPOINT_ID)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
INERT = (".safetensors", ".json", ".md", ".txt", ".jinja")
"""What a checkpoint may hold: nothing that runs when it is loaded, as a pickle does."""
GATE_REPORT_NAME = "gate.json"
SIGNATURE_NAME = "manifest.sig"


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


class DataWindow(BaseModel):
    """When what a checkpoint learnt from was logged: from `first` (inclusive) to `last` (exclusive)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: AwareDatetime
    last: AwareDatetime

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.first >= self.last:
            raise ValueError("a data window ends after it begins")
        return self

    @classmethod
    def parse(cls, text: str) -> DataWindow:
        """Read `FIRST/LAST`, two moments in ISO 8601; what has no time zone is UTC.

        Raises:
            ValueError: it is no window; the message has an example.
        """
        try:
            first, last = (datetime.fromisoformat(part) for part in text.split("/"))
            return cls(
                first=first if first.tzinfo else first.replace(tzinfo=UTC),
                last=last if last.tzinfo else last.replace(tzinfo=UTC),
            )
        except ValueError as error:
            raise ValueError(f"{text!r} is no window such as 2026-11-08/2026-11-15: {error}") from error


class Manifest(BaseModel):
    """Everything a server must know before it loads a byte of the weights.

    `files` maps plain file names (no folders) to digests. `parent` names the checkpoint it was made from,
    by the digest of its manifest (in version 1, by its id). `training` is the configuration of the run, as
    free-form facts; `data_window` says what it has seen, `reward_version` by which reward. `gate_report` is
    the digest of `gate.json` beside it. These three are of version 2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1, 2]
    checkpoint_id: CheckpointId
    architecture: Literal["Qwen3ForCausalLM"]
    prompt_version: int
    parameters: int = Field(gt=0)
    parent: str | None
    files: Mapping[FileName, FileEntry]
    golden: tuple[GoldenPrompt, ...]
    training: Mapping[str, object]
    data_window: DataWindow | None = None
    reward_version: str | None = None
    gate_report: Digest | None = None

    @field_validator("files")
    @classmethod
    def _inert(cls, files: Mapping[str, FileEntry]) -> Mapping[str, FileEntry]:
        if runs := [name for name in files if not name.endswith(INERT)]:
            raise ValueError(f"{runs[0]}: neither text nor safetensors; a file that may run code is refused")
        return files

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

    def with_gate_report(self, digest: str) -> Manifest:
        """The same checkpoint with the gate's report on it: another manifest, the same weights."""
        return self.model_copy(update={"version": MANIFEST_VERSION, "gate_report": digest})


def address_of(manifest: bytes) -> str:
    """The content address of a checkpoint: the SHA-256 (hex) of its `manifest.json`, which has all others."""
    return hashlib.sha256(manifest).hexdigest()
