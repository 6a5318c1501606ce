"""The registry: immutable checkpoints in a folder or bucket, each under the digest of its manifest.

    checkpoints/DIGEST/            model.safetensors, tokenizer.json, ..., and manifest.json, written last
    aliases/NAME/NUMBER.json       see `app.registry.aliases`

The address is computed from the content, so nothing is ever overwritten with something else, two writers of
the same checkpoint write the same, and what was altered does not answer to its address. A folder without a
manifest is an upload that was cut off, or goes on: nobody sees it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fcntl import LOCK_EX, flock
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import ValidationError

from app.contracts.manifest import (
    GATE_REPORT_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    address_of,
)
from app.errors import CheckpointError, RegistryError, UnfitFileError, UnknownCheckpointError
from app.registry.aliases import ALIAS, Aliases
from app.registry.checkpoint import MAX_MANIFEST_BYTES, Checkpoint, describe_file, load_checkpoint
from app.registry.place import Place
from app.registry.signature import require_signature, sign

FOLDER = "checkpoints"
DIGEST = r"^[0-9a-f]{64}$"
SHORTEST_PREFIX = 8
MOST_BYTES = 64 << 30
"""A checkpoint that says it is larger is not fetched."""
HALF_WRITTEN = timedelta(days=1)
"""What has no manifest after this long was cut off."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint in the registry: its address, its manifest, and when it was put there."""

    digest: str
    manifest: Manifest
    pushed: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """What lies at an address and is no checkpoint, or not the one of that address."""

    digest: str
    reason: str


class Registry:
    """The checkpoints and aliases of one place.

    Args:
        place: where it lies.
        signers: PEM file of public keys, one of which must have signed what is fetched; None: nobody must.
    """

    def __init__(self, place: Place, *, signers: Path | None = None) -> None:
        self._place, self._signers = place, signers
        self.aliases = Aliases(place)

    def push(self, folder: Path, *, gate_report: Path | None = None, key: Path | None = None) -> str:
        """Put the checkpoint of a folder into the registry; return its address.

        Args:
            folder: a checkpoint folder. It is verified first, and not changed.
            gate_report: `gate.json` of the gate, which the manifest will name; one in the folder already
                stays on it otherwise.
            key: PEM file to sign it with.

        Raises:
            CheckpointError: the folder is no checkpoint, or the key is none.
            RegistryError: the place is out of reach.
        """
        checkpoint = load_checkpoint(folder)
        own = content = (folder / MANIFEST_NAME).read_bytes()
        if gate_report is not None:
            named = checkpoint.manifest.with_gate_report(describe_file(gate_report).sha256)
            content = named.to_json().encode()
        elif checkpoint.manifest.gate_report:
            gate_report = folder / GATE_REPORT_NAME
        digest = address_of(content)
        signature = folder / SIGNATURE_NAME
        if key is not None:
            # Over another one's: whoever has the key now is who is to be believed from now on.
            self._place.replace(sign(content, key), FOLDER, digest, SIGNATURE_NAME)
        elif signature.is_file() and content == own:
            self._place.create(signature.read_bytes(), FOLDER, digest, SIGNATURE_NAME)
        if not self._is_whole(digest):
            for name in checkpoint.manifest.files:
                self._place.put(folder / name, FOLDER, digest, name)
            if gate_report is not None:
                self._place.put(gate_report, FOLDER, digest, GATE_REPORT_NAME)
            self._place.create(content, FOLDER, digest, MANIFEST_NAME)
        return digest

    def pull(self, digest: str, folder: Path) -> Checkpoint:
        """Copy a checkpoint into `folder`, which is there whole and verified afterwards or not at all.

        Raises:
            CheckpointError: it is not what its address and manifest say, or not signed where it must be.
                Sizes are compared before anything is fetched, digests before anything is loaded.
            UnknownCheckpointError: there is none at that address.
            RegistryError: the place is out of reach, or this machine has no room.
        """
        content, manifest = self._manifest(digest)
        wanted = dict(manifest.files)
        if (total := sum(entry.bytes for entry in wanted.values())) > MOST_BYTES:
            raise CheckpointError(f"{digest}: {total} bytes, more than the {MOST_BYTES} that are fetched")
        for name, entry in wanted.items():
            self._require_size(digest, name, entry)
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            with writing(folder):
                part.mkdir(parents=True)
                (part / MANIFEST_NAME).write_bytes(content)
                beside = [GATE_REPORT_NAME] if manifest.gate_report else []
                if self._has(digest, SIGNATURE_NAME):
                    beside.append(SIGNATURE_NAME)
                for name in beside:
                    (part / name).write_bytes(self._read(digest, name))
                for name in wanted:
                    self._place.fetch(part / name, FOLDER, digest, name)
                checkpoint = load_checkpoint(part, signers=self._signers)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return replace(checkpoint, path=folder)

    def pull_once(self, digest: str, folder: Path) -> Checkpoint:
        """Return the checkpoint in `folder`, copied there first unless it is there and as it should be.

        Any number of processes of one machine may ask for it at the same time: one of them fetches. What has
        been fetched needs the registry no more.

        Raises:
            CheckpointError, UnknownCheckpointError, RegistryError: as `pull` does.
        """
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.parent):
            try:
                if address_of((folder / MANIFEST_NAME).read_bytes()) == digest:
                    return load_checkpoint(folder, signers=self._signers)
            except (OSError, CheckpointError):
                pass  # not there, or spoilt
            return self.pull(digest, folder)

    def verify(self, digest: str) -> None:
        """Fetch a checkpoint and throw it away; raises as `pull` does."""
        with TemporaryDirectory() as folder:
            self.pull(digest, Path(folder) / "checkpoint")

    def digests(self) -> list[str]:
        """The addresses of all checkpoints that are there whole."""
        return [digest for digest in self._place.names(FOLDER) if self._is_whole(digest)]

    def all(self) -> Iterator[Stored | Refused]:
        """All checkpoints, and what lies in their place and is none."""
        for digest in self.digests():
            try:
                yield self.stored(digest)
            except CheckpointError as error:
                yield Refused(digest, str(error))

    def stored(self, digest: str) -> Stored:
        """One of them.

        Raises:
            UnknownCheckpointError: there is none at that address.
            CheckpointError: its manifest was altered, or is of an unknown version.
        """
        _, manifest = self._manifest(digest)
        return Stored(digest, manifest, self._place.modified(FOLDER, digest, MANIFEST_NAME))

    def gate_report(self, stored: Stored) -> bytes | None:
        """The gate's report on a checkpoint; None where there is none.

        Raises:
            CheckpointError: it is not the one that the manifest names.
        """
        if stored.manifest.gate_report is None:
            return None
        content = self._read(stored.digest, GATE_REPORT_NAME)
        if address_of(content) != stored.manifest.gate_report:
            raise CheckpointError(
                f"{stored.digest}: {GATE_REPORT_NAME} is not the report that its manifest names"
            )
        return content

    def signature(self, stored: Stored) -> Literal["none", "not checked", "good", "refused"]:
        """Return what its signature is worth: not checked where no signers are named.

        Raises:
            RegistryError: the place is out of reach.
        """
        if not self._has(stored.digest, SIGNATURE_NAME):
            return "none"
        if self._signers is None:
            return "not checked"
        try:
            content, _ = self._manifest(stored.digest)
            signature = self._read(stored.digest, SIGNATURE_NAME)
            require_signature(content, signature, self._signers, stored.digest)
        except CheckpointError:
            return "refused"
        return "good"

    def resolve(self, reference: str) -> str:
        """Return the address that a reference means: an alias, an address or its beginning, or an id.

        Raises:
            UnknownCheckpointError: it means none, or several.
        """
        if re.fullmatch(ALIAS, reference) and (move := self.aliases.current(reference)):
            if move.to_digest is None:
                raise UnknownCheckpointError(f"{reference} points nowhere since {move.when}: {move.why}")
            return move.to_digest
        is_prefix = len(reference) >= SHORTEST_PREFIX
        found = [digest for digest in self.digests() if is_prefix and digest.startswith(reference)]
        found = found or [
            one.digest
            for one in self.all()
            if isinstance(one, Stored) and one.manifest.checkpoint_id == reference
        ]
        if len(found) != 1:
            many = (
                f"{len(found)} checkpoints are called that: name an address"
                if found
                else "no such checkpoint"
            )
            raise UnknownCheckpointError(f"{reference!r}: {many} ({self._place.url})")
        return found[0]

    def collect(self, now: datetime, *, unused_for: timedelta, really: bool) -> list[str]:
        """Remove what no alias needs any more; return the addresses.

        A checkpoint stays while an alias points to it, and for `unused_for` after one did or it was pushed.
        Uploads that were cut off go after a day.

        Args:
            now: the time.
            unused_for: how long it must have been of no use.
            really: False only says what would go.
        """
        needed = set(self.aliases.all().values())
        for alias in self._place.names("aliases"):
            for move in self.aliases.history(alias):
                if move.when > now - unused_for:
                    needed |= {digest for digest in (move.from_digest, move.to_digest) if digest}
        found = [digest for digest in self._place.names(FOLDER) if digest not in needed]
        gone = [digest for digest in found if self._age(digest, now) > self._patience(digest, unused_for)]
        for digest in gone if really else ():
            if self._is_whole(digest):
                self._place.remove(FOLDER, digest, MANIFEST_NAME)  # from here on nobody sees it
            self._place.remove(FOLDER, digest)
        return gone

    def _patience(self, digest: str, unused_for: timedelta) -> timedelta:
        return unused_for if self._is_whole(digest) else HALF_WRITTEN

    def _age(self, digest: str, now: datetime) -> timedelta:
        """How long ago the last of its files was written."""
        written = [self._place.modified(FOLDER, digest, name) for name in self._place.names(FOLDER, digest)]
        return now - max(written, default=now)

    def _is_whole(self, digest: str) -> bool:
        return self._has(digest, MANIFEST_NAME)

    def _has(self, digest: str, name: str) -> bool:
        try:
            return self._place.size(FOLDER, digest, name) is not None
        except UnfitFileError:  # something is there; whoever reads it is told what
            return True

    def _read(self, digest: str, name: str) -> bytes:
        """A small file of a checkpoint. Raises CheckpointError where it is none that may be read."""
        try:
            return self._place.read(FOLDER, digest, name, most=MAX_MANIFEST_BYTES)
        except UnfitFileError as error:
            raise CheckpointError(str(error)) from error

    def _manifest(self, digest: str) -> tuple[bytes, Manifest]:
        if not re.fullmatch(DIGEST, digest) or not self._is_whole(digest):
            raise UnknownCheckpointError(f"no checkpoint {digest} in {self._place.url}")
        content = self._read(digest, MANIFEST_NAME)
        if address_of(content) != digest:
            raise CheckpointError(f"{digest}: its manifest is not the one of that address: it was altered")
        try:
            return content, Manifest.model_validate_json(content)
        except ValidationError as error:
            raise CheckpointError(f"{digest}: {MANIFEST_NAME}: {error}") from error

    def _require_size(self, digest: str, name: str, entry: FileEntry) -> None:
        try:
            size = self._place.size(FOLDER, digest, name)
        except UnfitFileError as error:
            raise CheckpointError(str(error)) from error
        if size is None:
            raise CheckpointError(f"{digest}: {name} is missing")
        if size != entry.bytes:
            raise CheckpointError(f"{digest}: {name} has {size} bytes where the manifest says {entry.bytes}")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what this machine's disk refuses into RegistryError."""
    try:
        yield
    except OSError as error:
        raise RegistryError(f"{folder}: {error}") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others who ask for the same from a folder, until this process ends at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)
