from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from app.contracts.confidence import KINDS, features
from training.calibrate import Observation, cross_fitted, fit, make_probes
from training.datasets.jobs import read_jobs
from training.reliability import draw_reliability, reliability


@dataclass(frozen=True)
class Sure:
    logprob: float
    text: str = "x"
    token_ids: tuple[int, ...] = (1, 2, 3)


def simulated(count: int = 15_000) -> list[Observation]:
    """Completions that are right exactly as often as their probability says, in every kind."""
    rng = Random(1)
    made = []
    for number in range(count):
        logprob = -rng.expovariate(1.0)
        made.append(
            Observation(
                KINDS[number % 3],
                features([Sure(logprob), Sure(logprob - 1)], 0),
                rng.random() < np.exp(logprob),
                "s",
                first=True,
            )
        )
    return made


def test_the_fit_recovers_simulated_probabilities() -> None:
    observations = simulated()
    report = reliability(observations, cross_fitted(observations))
    for kind in KINDS:
        assert report[kind]["count"] == 5000
        assert report[kind]["ece"] < 0.03
        assert report[kind]["auroc"] > 0.75


def test_more_probable_is_more_trusted() -> None:
    platt = fit(simulated(), threshold=0.5).kinds["vocabulary"]
    assert platt.probability(features([Sure(-0.1), Sure(-1.1)], 0)) > 0.8
    assert platt.probability(features([Sure(-4.0), Sure(-5.0)], 0)) < 0.1


def test_a_kind_without_contrast_is_refused() -> None:
    observations = [Observation("vocabulary", (-1.0, -1.0, 0.0), right=True, source="s", first=True)] * 5
    with pytest.raises(ValueError, match="spelling"):
        fit(observations, threshold=0.5)


def test_probes_are_of_every_kind_and_none_was_trained_on(mini_data: Path) -> None:
    probes = make_probes(mini_data)
    assert {"seen", "unseen", "phrase", "rare phrase", "follow-up", "conversation"} <= {
        p.source for p in probes
    }
    trained = {title for title, _ in read_jobs(mini_data / "jobs").train}
    assert not trained & {p.query for p in probes if p.source in {"seen", "unseen"}}
    assert all(bool(p.right) != p.source.startswith("unseen") for p in probes if "seen" in p.source)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    observations = simulated(300)
    draw_reliability(reliability(observations, cross_fitted(observations)), tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
