"""A loop's configuration for tests: one phase of one instance, and everything in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.config import LoopConfig


def loop_config(folder: Path, **changes: Any) -> LoopConfig:
    """Return it, with these fields instead; checkpoint, relevance model and data are `folder`."""
    own = dict.fromkeys(("data_dir", "checkpoint", "relevance"), folder)
    logs = [{"corpus": folder, "simulated": "jobs"}]
    given = {"name": "one", "seed": 1, "phases": 1, "instances": 1, "logs": logs}
    return LoopConfig.model_validate(own | given | changes)
