"""A checkpoint folder of a few bytes: whole by its manifest, though no engine could load it."""

from __future__ import annotations

import json
from pathlib import Path

from app.contracts.confidence import Calibration
from app.contracts.manifest import MANIFEST_NAME
from app.contracts.prompt import PROMPT_VERSION
from app.registry.checkpoint import REQUIRED, describe_file

NO_TENSORS = (2).to_bytes(8, "little") + b"{}"


def write_checkpoint(folder: Path, *, weights: str = "", **facts: object) -> Path:
    """Write one into `folder`; `weights` make it another one, `facts` go over those of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in REQUIRED:
        (folder / name).write_text(f"content of {name}")
    (folder / "model.safetensors").write_bytes(NO_TENSORS + weights.encode())
    (folder / "calibration.json").write_text(Calibration.own_probability(0.5).to_json())
    write_manifest(folder, **facts)
    return folder


def write_manifest(folder: Path, **changes: object) -> None:
    """Describe what is there."""
    names = [name for name in REQUIRED if (folder / name).exists()]
    facts = {
        "version": 2,
        "checkpoint_id": "test-1",
        "architecture": "Qwen3ForCausalLM",
        "prompt_version": PROMPT_VERSION,
        "parameters": 10,
        "parent": None,
        "files": {name: describe_file(folder / name).model_dump() for name in names},
        "golden": [],
        "training": {},
    }
    (folder / MANIFEST_NAME).write_text(json.dumps({**facts, **changes}))
