from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mini_data import write_data

from training.config import ModelConfig, OptimConfig, RunConfig


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Iterable[Mapping[str, Any]]], Path]:
    def write(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def mini_config(mini_data: Path) -> RunConfig:
    """A run that takes a second."""
    shares = {"jobs": 0.5, "products": 0.2, "typos": 0.1, "context": 0.1, "fashion": 0.1}
    return RunConfig(
        name="mini",
        seed=3,
        data_dir=mini_data,
        threads=1,
        save_every=4,
        mixture=shares,
        model=ModelConfig(
            vocab_size=400,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            intermediate_size=64,
            max_tokens=256,
        ),
        optim=OptimConfig(
            steps=12,
            batch_tokens=20_000,
            learning_rate=5e-3,
            matrix_learning_rate=2e-2,
            weight_decay=0.01,
            warmup_ratio=0.1,
            clip_norm=1.0,
            dropout=0.1,
        ),
    )
