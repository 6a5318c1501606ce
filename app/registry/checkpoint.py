"""Reading a checkpoint folder: nothing is believed that the manifest's digests do not prove."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from app.contracts.confidence import CALIBRATION_NAME, Calibration
from app.contracts.manifest import CHECKPOINT_ID, MANIFEST_NAME, FileEntry, GoldenPrompt, Manifest
from app.contracts.prompt import PROMPT_VERSION
from app.errors import CheckpointError, UnknownCheckpointError

DEFAULT_CHECKPOINT = Path(__file__).parent / "default"
REQUIRED = ("config.json", "model.safetensors", "tokenizer.json", CALIBRATION_NAME)
MAX_MANIFEST_BYTES = 1 << 20

Described = TypeVar("Described", bound=BaseModel)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: id, folder, the digest over its files, and how to read its confidence."""

    id: str
    path: Path
    weights_digest: str
    manifest: Manifest
    calibration: Calibration

    @property
    def model_digest(self) -> str:
        """SHA-256 (hex) over what its tokens are a function of."""
        return self.manifest.model_digest

    def verify(self) -> None:
        """Read all files again; raises CheckpointError unless they are the manifest's."""
        for name, entry in self.manifest.files.items():
            verify_file(self.path / name, entry)

    @property
    def golden(self) -> tuple[GoldenPrompt, ...]:
        """Prompts, and the tokens its trainer saw for them."""
        return self.manifest.golden


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify the checkpoint in `path` and return it.

    Raises:
        CheckpointError: a file is missing, altered, a symbolic link, or of an unknown version; the message
            names the file. Nothing of the weights is parsed before all digests agree.
    """
    manifest = read_manifest(path, Manifest, "a checkpoint folder")
    for name in REQUIRED:
        if name not in manifest.files:
            raise CheckpointError(f"{path / MANIFEST_NAME}: lists no {name}")
    for name, entry in manifest.files.items():
        verify_file(path / name, entry)
    if manifest.prompt_version != PROMPT_VERSION:
        raise CheckpointError(
            f"{path}: trained for prompt version {manifest.prompt_version}, "
            f"this server renders {PROMPT_VERSION}"
        )
    try:
        calibration = Calibration.from_json((path / CALIBRATION_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path / CALIBRATION_NAME}: {error}") from error
    return Checkpoint(manifest.checkpoint_id, path, manifest.weights_digest, manifest, calibration)


def find_checkpoint(folder: Path, checkpoint_id: str) -> Checkpoint:
    """Verify and return the checkpoint `checkpoint_id`, which is the folder of that name in `folder`.

    Raises:
        UnknownCheckpointError: there is none.
        CheckpointError: it cannot be used; see `load_checkpoint`.
    """
    path = folder / checkpoint_id
    if not re.fullmatch(CHECKPOINT_ID, checkpoint_id) or not path.is_dir():
        raise UnknownCheckpointError(f"no checkpoint {checkpoint_id!r} among those here")
    checkpoint = load_checkpoint(path)
    if checkpoint.id != checkpoint_id:
        raise CheckpointError(f"{path / MANIFEST_NAME}: this is {checkpoint.id}, not {checkpoint_id}")
    return checkpoint


def describe_file(path: Path) -> FileEntry:
    """Return the manifest's entry for a file."""
    return FileEntry(sha256=_sha256(path), bytes=path.stat().st_size)


def read_manifest(path: Path, kind: type[Described], what: str) -> Described:
    """Read `manifest.json` of a folder as `kind`; `what` says what the folder should be.

    Raises:
        CheckpointError: there is none, it is too large, or it is not of that kind.
    """
    file = path / MANIFEST_NAME
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; is {path} {what}?")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise CheckpointError(f"{file}: larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CheckpointError(f"{file}: {error}") from error


def verify_file(file: Path, entry: FileEntry) -> None:
    """Raise CheckpointError unless `file` is the plain file that the manifest's entry describes."""
    if file.is_symlink():
        raise CheckpointError(f"{file}: a symbolic link; a checkpoint holds plain files only")
    if not file.is_file():
        raise CheckpointError(f"{file}: missing")
    if (size := file.stat().st_size) != entry.bytes:
        raise CheckpointError(f"{file}: {size} bytes where the manifest says {entry.bytes}")
    if _sha256(file) != entry.sha256:
        raise CheckpointError(f"{file}: its SHA-256 is not the manifest's; the file was altered")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
