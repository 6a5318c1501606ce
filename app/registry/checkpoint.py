"""Reading a checkpoint folder: nothing is believed that the manifest's digests do not prove."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from app.contracts.confidence import CALIBRATION_NAME, Calibration
from app.contracts.manifest import (
    CHECKPOINT_ID,
    GATE_REPORT_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    GoldenPrompt,
    Manifest,
)
from app.contracts.prompt import PROMPT_VERSION
from app.errors import CheckpointError, UnknownCheckpointError
from app.registry.signature import read_signers, require_signature

DEFAULT_CHECKPOINT = Path(__file__).parent / "default"
REQUIRED = ("config.json", "model.safetensors", "tokenizer.json", CALIBRATION_NAME)
BESIDE = (MANIFEST_NAME, SIGNATURE_NAME, GATE_REPORT_NAME)
"""What lies beside the files that a manifest lists."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library has it

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


def load_checkpoint(path: Path, *, signers: Path | None = None) -> Checkpoint:
    """Verify the checkpoint in `path` and return it.

    Args:
        path: its folder.
        signers: PEM file of public keys, one of which must have signed it; None: nobody must. The one that
            comes with the package needs none: who could alter it could alter what asks for a signature.

    Raises:
        CheckpointError: a file is missing, altered, a symbolic link, of an unknown version or a kind that may
            run code, or nobody has signed it who must; the message names the file. Nothing of the weights is
            parsed before all digests agree.
    """
    manifest = read_manifest(path, Manifest, "a checkpoint folder")
    if signers is not None and path.resolve() == DEFAULT_CHECKPOINT.resolve():
        read_signers(signers)  # what is wrong with them is to be told now, and not by the first rollout
    elif signers is not None:
        signature = path / SIGNATURE_NAME
        signed = signature.read_bytes() if signature.is_file() else None
        require_signature((path / MANIFEST_NAME).read_bytes(), signed, signers, str(path))
    for name in REQUIRED:
        if name not in manifest.files:
            raise CheckpointError(f"{path / MANIFEST_NAME}: lists no {name}")
    for name, entry in manifest.files.items():
        verify_file(path / name, entry)
        if name.endswith(".safetensors"):
            require_safetensors(path / name)
    _require_nothing_else(path, manifest)
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


def _require_nothing_else(path: Path, manifest: Manifest) -> None:
    """Beside what is listed there may be the gate's report, the one that is named, and a signature."""
    for name in sorted(file.name for file in path.iterdir()):
        if name not in (*manifest.files, *BESIDE) and not name.startswith("."):
            raise CheckpointError(
                f"{path / name}: its manifest does not list it, and a library might load it; remove it"
            )
    if manifest.gate_report is not None:
        report = path / GATE_REPORT_NAME
        if not report.is_file() or _sha256(report) != manifest.gate_report:
            raise CheckpointError(f"{report}: not the report that the manifest names")


def find_checkpoint(folder: Path, checkpoint_id: str, *, signers: Path | None = None) -> Checkpoint:
    """Verify and return the checkpoint `checkpoint_id`, which is the folder of that name in `folder`.

    `signers` as `load_checkpoint` has them.

    Raises:
        UnknownCheckpointError: there is none.
        CheckpointError: it cannot be used; see `load_checkpoint`.
    """
    path = folder / checkpoint_id
    if not re.fullmatch(CHECKPOINT_ID, checkpoint_id) or not path.is_dir():
        raise UnknownCheckpointError(f"no checkpoint {checkpoint_id!r} among those here")
    checkpoint = load_checkpoint(path, signers=signers)
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


def require_safetensors(file: Path) -> None:
    """Raise CheckpointError unless `file` begins as safetensors do: the length of a JSON object, and it."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(length, MAX_HEADER_BYTES))
    if length > MAX_HEADER_BYTES or len(header) < length or not header.startswith(b"{"):
        raise CheckpointError(f"{file}: not safetensors, whatever its name says; it is not opened")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
