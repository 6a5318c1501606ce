"""`corewrite checkpoints list | show | verify | import | pull | alias | gc`: the registry at the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import CheckpointError, CorewriteError

if TYPE_CHECKING:
    from app.contracts.manifest import DataWindow
    from app.registry.store import Registry, Stored

_SHORT = 12


def add_registry_actions(actions: Any) -> None:
    """Add them to the parser of `corewrite checkpoints`."""
    listed = _add(actions, "list", _list, "what is in the registry")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    show = _add(actions, "show", _show, "one checkpoint: manifest, lineage, aliases, the gate's verdict")
    _reference(show)
    show.add_argument("--json", action="store_true", help="the manifest as it is")
    verify = _add(actions, "verify", _verify, "read every byte of a checkpoint, or of all, and compare")
    verify.add_argument("reference", nargs="*", metavar="REF", help="all for want of any")
    taken = _add(
        actions, "import", _import, "put a checkpoint folder, or a Hugging Face folder, into the registry"
    )
    taken.add_argument("folder", type=Path, metavar="FOLDER")
    taken.add_argument("--id", help="name of the checkpoint that a Hugging Face folder becomes")
    taken.add_argument("--calibration", type=Path, metavar="FILE", help="calibration.json fitted for it")
    taken.add_argument("--parent", metavar="REF", help="what it was made from")
    taken.add_argument("--learnt", metavar="FIRST/LAST", help="days of the logs that it has learnt from")
    taken.add_argument("--gate-report", type=Path, metavar="FILE", help="gate.json of `corewrite gate`")
    taken.add_argument("--sign-with", type=Path, metavar="KEY", help="Ed25519 private key (PEM)")
    pull = _add(actions, "pull", _pull, "copy a checkpoint into a folder, verified")
    _reference(pull)
    pull.add_argument("folder", type=Path, metavar="FOLDER")
    alias = _add(actions, "alias", _alias, "point an alias to a checkpoint; without REF, its audit trail")
    alias.add_argument("alias", metavar="ALIAS", help="such as stable, candidate, last_good")
    alias.add_argument("reference", nargs="?", metavar="REF")
    alias.add_argument("--why", help="for the audit trail; asked for where the alias is to move")
    alias.add_argument("--who", help="for the audit trail (default: the user and machine)")
    alias.add_argument("--expect", metavar="REF", help="move it only if it points there now")
    gc = _add(actions, "gc", _gc, "remove checkpoints that no alias needs")
    gc.add_argument(
        "--unused-days", type=int, default=30, metavar="N", help="unused for this long (%(default)s)"
    )
    gc.add_argument("--really", action="store_true", help="remove them; without it they are only listed")


def _add(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("--registry", metavar="URL", help="folder or s3://..., gs://... (REWRITE_REGISTRY)")
    parser.set_defaults(run=run)
    return parser


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", metavar="REF", help="alias, address (or 8 characters of it), or id")


def open_registry(url: str | None) -> Registry:
    """The registry at `url`, or else of REWRITE_REGISTRY. Raises CorewriteError where neither names one."""
    from app.cli import settings_of  # noqa: PLC0415 -- as above
    from app.registry.place import Place  # noqa: PLC0415 -- after parsing
    from app.registry.store import Registry  # noqa: PLC0415 -- as above

    settings = settings_of(argparse.Namespace())
    url = url or settings.registry
    if not url:
        raise CorewriteError("no registry: name one with --registry or REWRITE_REGISTRY")
    return Registry(Place.at(url), signers=settings.signers)


def _list(arguments: argparse.Namespace) -> int:
    from app.registry.store import Refused, Stored  # noqa: PLC0415 -- after parsing

    registry = open_registry(arguments.registry)
    aliases = registry.aliases.all()
    found = list(registry.all())
    refused = [one for one in found if isinstance(one, Refused)]
    for stored in sorted((one for one in found if isinstance(one, Stored)), key=lambda one: one.pushed):
        facts = _facts(registry, stored, aliases)
        if arguments.json:
            sys.stdout.write(json.dumps(facts) + "\n")
        else:
            sys.stdout.write(
                f"{stored.digest[:_SHORT]}  {facts['id']:<24}  {facts['bytes'] / 1e6:8.1f} MB  "
                f"{stored.pushed:%Y-%m-%d %H:%M}  {facts['gate'] or '-':<12}  {' '.join(facts['aliases'])}\n"
            )
    sys.stderr.writelines(f"{one.digest[:_SHORT]}  refused: {one.reason}\n" for one in refused)
    return 2 if refused else 0


def _show(arguments: argparse.Namespace) -> int:
    registry = open_registry(arguments.registry)
    stored = registry.stored(registry.resolve(arguments.reference))
    if arguments.json:
        sys.stdout.write(stored.manifest.to_json())
        return 0
    facts = _facts(registry, stored, registry.aliases.all())
    manifest = stored.manifest
    window = manifest.data_window
    lines = {
        "id": manifest.checkpoint_id,
        "address": stored.digest,
        "pushed": f"{stored.pushed:%Y-%m-%d %H:%M:%S %Z}",
        "aliases": " ".join(facts["aliases"]) or "none",
        "gate": facts["gate"] or "not gated",
        "model": f"{manifest.architecture}, {manifest.parameters:,} parameters",
        "prompt": f"version {manifest.prompt_version}",
        "data": f"{window.first:%Y-%m-%d} to {window.last:%Y-%m-%d}" if window else "not stated",
        "reward": manifest.reward_version or "none",
        "lineage": " < ".join(_lineage(registry, stored)),
        "golden": f"{len(manifest.golden)} prompts",
    }
    width = max(map(len, lines))
    sys.stdout.writelines(f"{name:<{width}}  {value}\n" for name, value in lines.items())
    for name, entry in manifest.files.items():
        sys.stdout.write(f"  {entry.sha256[:_SHORT]}  {entry.bytes:>12,}  {name}\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    registry = open_registry(arguments.registry)
    references = [registry.resolve(reference) for reference in arguments.reference]
    wrong = 0
    for digest in references or registry.digests():
        try:
            registry.verify(digest)
        except CheckpointError as error:
            wrong += 1
            sys.stdout.write(f"{digest[:_SHORT]}  refused: {error}\n")
        else:
            sys.stdout.write(f"{digest[:_SHORT]}  as its address and manifest say\n")
    return 2 if wrong else 0


def _import(arguments: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory  # noqa: PLC0415 -- after parsing

    from app.contracts.manifest import MANIFEST_NAME  # noqa: PLC0415 -- as above
    from app.registry.intake import take_in  # noqa: PLC0415 -- as above

    registry = open_registry(arguments.registry)
    with TemporaryDirectory() as temporary:
        folder = arguments.folder
        own = [name for name in ("id", "calibration", "parent", "learnt") if getattr(arguments, name)]
        if not (folder / MANIFEST_NAME).exists():
            if not arguments.id:
                raise CorewriteError(f"{folder} is no checkpoint folder yet: name the checkpoint with --id")
            parent = registry.resolve(arguments.parent) if arguments.parent else None
            learnt = _window(arguments.learnt) if arguments.learnt else None
            folder = Path(temporary) / "checkpoint"
            take_in(
                arguments.folder,
                folder,
                checkpoint_id=arguments.id,
                calibration=arguments.calibration,
                parent=parent,
                data_window=learnt,
            )
        elif own:
            raise CorewriteError(f"{folder} is a checkpoint folder: its manifest says what --{own[0]} would")
        digest = registry.push(folder, gate_report=arguments.gate_report, key=arguments.sign_with)
    sys.stdout.write(f"{digest}\n")
    return 0


def _window(text: str) -> DataWindow:
    from app.contracts.manifest import DataWindow  # noqa: PLC0415 -- after parsing

    try:
        return DataWindow.parse(text)
    except ValueError as error:
        raise CorewriteError(f"--learnt: {error}") from error


def _pull(arguments: argparse.Namespace) -> int:
    registry = open_registry(arguments.registry)
    checkpoint = registry.pull(registry.resolve(arguments.reference), arguments.folder)
    sys.stdout.write(f"{checkpoint.id} is in {arguments.folder}, verified\n")
    return 0


def _alias(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime  # noqa: PLC0415 -- after parsing

    from app.registry.aliases import this_user  # noqa: PLC0415 -- as above

    registry = open_registry(arguments.registry)
    if arguments.reference is None:
        for move in registry.aliases.history(arguments.alias):
            before, after = ((d or "nothing")[:_SHORT] for d in (move.from_digest, move.to_digest))
            sys.stdout.write(
                f"{move.when:%Y-%m-%d %H:%M:%S %Z}  {before} -> {after}  {move.who}: {move.why}\n"
            )
        return 0
    if not arguments.why:
        raise CorewriteError("say --why: the audit trail asks for it")
    seen = registry.aliases.current(arguments.alias)
    if arguments.expect:
        expected, now = registry.resolve(arguments.expect), seen.to_digest if seen else None
        if now != expected:
            raise CorewriteError(f"{arguments.alias} points to {now or 'nothing'}, not to {expected}")
    move = registry.aliases.move(
        arguments.alias,
        registry.resolve(arguments.reference),
        seen=seen,
        who=arguments.who or this_user(),
        why=arguments.why,
        when=datetime.now(UTC),
    )
    sys.stdout.write(f"{move.alias}: {move.from_digest or 'nothing'} -> {move.to_digest}\n")
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 -- after parsing

    registry = open_registry(arguments.registry)
    gone = registry.collect(
        datetime.now(UTC), unused_for=timedelta(days=arguments.unused_days), really=arguments.really
    )
    for digest in gone:
        sys.stdout.write(f"{'removed' if arguments.really else 'would remove'} {digest}\n")
    return 0


def _facts(registry: Registry, stored: Stored, aliases: dict[str, str]) -> dict[str, Any]:
    return {
        "address": stored.digest,
        "id": stored.manifest.checkpoint_id,
        "bytes": sum(entry.bytes for entry in stored.manifest.files.values()),
        "pushed": stored.pushed.isoformat(),
        "parent": stored.manifest.parent,
        "gate": _verdict(registry, stored),
        "aliases": sorted(alias for alias, digest in aliases.items() if digest == stored.digest),
    }


def _verdict(registry: Registry, stored: Stored) -> str | None:
    report = registry.gate_report(stored)
    return None if report is None else str(json.loads(report)["verdict"])


def _lineage(registry: Registry, stored: Stored) -> list[str]:
    """Ids from a checkpoint back to the first; the last is an address or id where it is not here any more."""
    names, parent = [stored.manifest.checkpoint_id], stored.manifest.parent
    while parent:
        try:
            manifest = registry.stored(parent).manifest
        except CheckpointError:
            return [*names, f"{parent[:_SHORT]} (not here)"]
        names.append(manifest.checkpoint_id)
        parent = manifest.parent
    return names
