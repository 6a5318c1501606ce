"""What serving costs: two processes that answer in turn."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from training.gate.serving import ServingError, measure_serving


def test_a_checkpoint_costs_about_what_it_costs() -> None:
    """Nothing is asserted of the time but that it was taken, as often as was asked for."""
    found = measure_serving(DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT, rounds=2)
    latency, memory = found["latency"], found["memory"]
    assert latency.incumbent is not None
    assert latency.candidate.size == latency.incumbent.size == 2
    assert np.isfinite([latency.candidate, latency.incumbent]).all()
    assert memory.exact
    assert float(memory.candidate[0]) == pytest.approx(1.0, abs=0.2)


def test_one_that_does_not_answer_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "broken")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ServingError, match="broken: does not answer"):
        measure_serving(DEFAULT_CHECKPOINT, folder, rounds=1)
