"""What a loop costs, told per step."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeRelevance
from loop_configs import loop_config
from tiny_policy import write_policy

from app.contracts.reasons import Drop
from app.relevance.base import Content
from training.bench_loop import Bench, rows_of
from training.config import MpoConfig, PairConfig, RewardConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.rating import Rater
from training.scoring import RawrankScorer


def test_a_million_instances_at_the_median_rate() -> None:
    rounds = [(2.0, 1.0, 1.0), (90.0, 1.0, 1.0), (2.0, 1.0, 0.0)]
    sampling, scoring, training = rows_of(rounds, instances=100)
    assert sampling == {
        "step": "sampling",
        "seconds per 1,000": 20.0,
        "share": 0.5,
        "hours per million": 5.6,
    }
    assert (scoring["share"], training["share"]) == (0.25, 0.25)


def test_a_round_draws_rates_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the policy that it started from as it was."""
    reward = RewardConfig(not_floored=tuple(Drop), gamma=0.5)
    rater = Rater(reward, {"rawrank": RawrankScorer(FakeRelevance())})
    monkeypatch.setattr("training.bench_loop.served_rater", lambda *_: rater)
    config = loop_config(
        write_policy(tmp_path),
        threads=1,
        sampling=SampleConfig(num_generations=4, max_tokens=4),
        pairs=PairConfig(tie=0.0),
        mpo=MpoConfig(batch=4),
    )
    before = (tmp_path / "model.safetensors").read_bytes()
    instances = [Instance(f"query {n}", (Seen(Content(f"job {n}"), 1.0),), (), ()) for n in range(3)]
    seconds = Bench(config, instances, ()).round(1)
    assert len(seconds) == 3
    assert all(value > 0 for value in seconds)
    assert (tmp_path / "model.safetensors").read_bytes() == before
