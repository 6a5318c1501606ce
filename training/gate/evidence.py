"""The measurements of a run, kept in a file: what `training.gate.power` draws its windows from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.gate.verdict import Measurement

EVIDENCE = "evidence.npz"


def save_evidence(measured: Mapping[str, Measurement], path: Path) -> None:
    """Keep measurements, each side an array by name."""
    arrays: dict[str, Any] = {}
    for name, found in measured.items():
        arrays[f"{name}/candidate"] = found.candidate
        if found.incumbent is not None:
            arrays[f"{name}/incumbent"] = found.incumbent
        if found.exact:
            arrays[f"{name}/exact"] = np.array(1)
    np.savez_compressed(path, **arrays)


def read_evidence(path: Path) -> dict[str, Measurement]:
    """Read what `save_evidence` kept."""
    with np.load(path) as arrays:
        names = {key.rpartition("/")[0] for key in arrays}
        return {
            name: Measurement(
                arrays[f"{name}/candidate"],
                arrays.get(f"{name}/incumbent"),
                f"{name}/exact" in arrays,
            )
            for name in sorted(names)
        }
