"""All checkpoints there are: in the registry, and in the folder of REWRITE_CHECKPOINTS. It blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.console.gate_report import GateReport, read_report
from app.contracts.manifest import (
    CHECKPOINT_ID,
    GATE_REPORT_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Manifest,
    address_of,
)
from app.errors import CheckpointError, CorewriteError, RegistryError, UnknownCheckpointError
from app.registry.aliases import Move
from app.registry.checkpoint import MAX_MANIFEST_BYTES, read_manifest
from app.registry.place import Place
from app.registry.store import Refused, Registry, Stored

if TYPE_CHECKING:
    from app.settings import Settings

Where = Literal["registry", "folder"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A checkpoint.

    Args:
        where: it lies.
        name: its id.
        key: its address.
        manifest: what it says of itself.
        pushed: when it came into the registry; None: it lies in a folder.
        aliases: that point to it.
        gate: what the gate says of it; None: nothing, or see `trouble`.
        trouble: why its report cannot be shown.
        signature: see `Registry.signature`; of a folder only whether there is one.
    """

    where: Where
    name: str
    key: str
    manifest: Manifest
    pushed: datetime | None = None
    aliases: Sequence[str] = ()
    gate: GateReport | None = None
    trouble: str | None = None
    signature: str = "none"

    @property
    def parent(self) -> str | None:
        """What it was made from: an address, in old manifests an id."""
        return self.manifest.parent

    @property
    def bytes(self) -> int:
        """All of its files."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    @property
    def path(self) -> str:
        """Of its page, after /console/checkpoints."""
        return f"/registry/{self.key}" if self.where == "registry" else f"/folder/{self.name}"

    @property
    def facts(self) -> str:
        """The configuration of its training, as JSON."""
        return json.dumps(dict(self.manifest.training), indent=1, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Shelf:
    """What lies in one place; `problem` says why it is not known what does."""

    entries: Sequence[Entry] = ()
    refused: Sequence[tuple[str, str]] = field(default=())
    problem: str | None = None


class Catalog:
    """Reads both places anew each time: others write to them."""

    def __init__(self, settings: Settings) -> None:
        self._url, self._signers = settings.registry, settings.signers
        self.folder = settings.checkpoints or settings.checkpoint.parent

    @property
    def has_registry(self) -> bool:
        """Whether the settings name one."""
        return self._url is not None

    def registry(self) -> Shelf:
        """Return what the registry has, the oldest first."""
        if self._url is None:
            return Shelf(problem="REWRITE_REGISTRY is not set: there is none.")
        try:
            registry = self._open()
            aliases, found = registry.aliases.all(), list(registry.all())
            entries = [_entry(registry, one, aliases) for one in found if isinstance(one, Stored)]
        except RegistryError as error:
            return Shelf(problem=f"The registry is out of reach. {error}")
        return Shelf(
            sorted(entries, key=lambda one: (one.pushed, one.key)),
            [(one.digest, one.reason) for one in found if isinstance(one, Refused)],
        )

    def folders(self) -> Shelf:
        """Return what may be activated by hand: each folder with a manifest."""
        entries, refused = [], []
        try:
            names = sorted(path.parent.name for path in self.folder.glob(f"*/{MANIFEST_NAME}"))
        except OSError as error:
            return Shelf(problem=f"{self.folder}: {error.strerror or error}")
        for name in names:
            try:
                entries.append(self._in_folder(name))
            except CorewriteError as error:
                refused.append((name, str(error)))
        return Shelf(entries, refused)

    def startable(self) -> list[Entry]:
        """Return what a rollout may be started of, the newest first.

        Raises:
            RegistryError: it is not known.
        """
        shelf = self.registry()
        if shelf.problem is not None:
            raise RegistryError(shelf.problem)
        return list(shelf.entries)[::-1]

    def one(self, where: str, name: str) -> tuple[Entry, Sequence[Move]]:
        """Return a checkpoint, and the moves of aliases to it or away from it, the newest first.

        Raises:
            UnknownCheckpointError: there is none.
            CorewriteError: it cannot be read.
        """
        if where == "folder":
            return self._in_folder(name), ()
        if where != "registry" or self._url is None:
            raise UnknownCheckpointError(f"no checkpoint {name[:64]!r} here")
        registry = self._open()
        entry = _entry(registry, registry.stored(name), registry.aliases.all())
        moves = [
            move
            for alias in registry.aliases.names()
            for move in registry.aliases.history(alias)
            if name in {move.from_digest, move.to_digest}
        ]
        return entry, sorted(moves, key=lambda move: move.when, reverse=True)

    def _open(self) -> Registry:
        return Registry(Place.at(self._url or ""), signers=self._signers)

    def _in_folder(self, name: str) -> Entry:
        path = self.folder / name
        if not re.fullmatch(CHECKPOINT_ID, name) or not path.is_dir():
            raise UnknownCheckpointError(f"no checkpoint {name[:64]!r} in {self.folder}")
        manifest = read_manifest(path, Manifest, "a checkpoint folder")
        gate, trouble = None, None
        if manifest.gate_report is not None:
            gate, trouble = _report_in(path, manifest.gate_report)
        signed = "not checked" if (path / SIGNATURE_NAME).is_file() else "none"
        address = address_of((path / MANIFEST_NAME).read_bytes())
        return Entry("folder", name, address, manifest, gate=gate, trouble=trouble, signature=signed)


def _entry(registry: Registry, stored: Stored, aliases: dict[str, str]) -> Entry:
    gate, trouble = None, None
    try:
        content = registry.gate_report(stored)
        gate = None if content is None else read_report(content)
    except CheckpointError as error:
        trouble = str(error)
    return Entry(
        "registry",
        stored.manifest.checkpoint_id,
        stored.digest,
        stored.manifest,
        stored.pushed,
        sorted(alias for alias, digest in aliases.items() if digest == stored.digest),
        gate,
        trouble,
        registry.signature(stored),
    )


def _report_in(folder: Path, named: str) -> tuple[GateReport | None, str | None]:
    file = folder / GATE_REPORT_NAME
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            return None, f"{GATE_REPORT_NAME} is larger than {MAX_MANIFEST_BYTES} bytes"
        content = file.read_bytes()
        if address_of(content) != named:
            return None, f"{GATE_REPORT_NAME} is not the report that the manifest names"
        return read_report(content), None
    except (OSError, CheckpointError) as error:
        return None, str(error)
