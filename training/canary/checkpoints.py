"""Checkpoints for a proof: one that does harm and has passed a gate, and twins of what serves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.contracts.manifest import MANIFEST_NAME, Manifest
from app.registry.checkpoint import describe_file
from app.registry.place import Place
from app.registry.store import Registry
from training.config import read_config
from training.drill.plan import DrillConfig
from training.drill.run import Drill
from training.loop import write_whole

WEIGHTS_NAME = "model.safetensors"


def harmful_checkpoint(drill: Path, hack: str, gate: Mapping[str, Any], folder: Path) -> str:
    """Train one of a drill's hacks, gate it by a weakened policy, push it; return its digest.

    Args:
        drill: its configuration.
        hack: the name of the hack.
        gate: merged into the gate's policy, so that the hack passes.
        folder: of all files; `folder / "registry"` has the checkpoint then, and what serves as `stable`.
    """
    done = folder / "harmful.json"
    if not done.exists():
        config = read_config(drill, DrillConfig)
        (chosen,) = [one for one in config.hacks if one.name == hack]
        trail, found = Drill(config.model_copy(update={"gate": dict(gate)}), folder).hacked(chosen)
        write_whole(done, json.dumps({"trail": [asdict(point) for point in trail], **found}) + "\n")
    return str(json.loads(done.read_text(encoding="utf-8"))["address"])


def twin(folder: Path, name: str) -> str:
    """Push what is stable under another name, which caches do not know; return its digest.

    Args:
        folder: `folder / "registry"` has `stable`; the twin is laid out in `folder / name`.
        name: its id, which goes into the header of its weights too, so that they have another digest.
    """
    registry = Registry(Place.at(str(folder / "registry")))
    copy = folder / name
    registry.pull(registry.resolve("stable"), copy)
    weights, manifest = copy / WEIGHTS_NAME, copy / MANIFEST_NAME
    weights.write_bytes(_noted(weights.read_bytes(), name))
    told = Manifest.model_validate_json(manifest.read_bytes())
    files = {**told.files, WEIGHTS_NAME: describe_file(weights)}
    renamed = told.model_copy(update={"checkpoint_id": name, "files": files})
    manifest.write_text(renamed.model_dump_json(indent=1), encoding="utf-8")
    return registry.push(copy)


def _noted(safetensors: bytes, note: str) -> bytes:
    """A safetensors file with a note in its header: 8 bytes of length, a JSON object, tensors."""
    end = 8 + int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8:end])
    header["__metadata__"] = {**header.get("__metadata__", {}), "note": note}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)  # tensors begin at a multiple of 8
    return len(told).to_bytes(8, "little") + told + safetensors[end:]
