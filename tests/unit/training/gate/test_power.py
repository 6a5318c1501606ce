"""Simulated windows: what is made equal is equal, and the rates are those of the tests beneath."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.gate.evidence import EVIDENCE, read_evidence, save_evidence
from training.gate.policy import Policy
from training.gate.power import as_good, drawn, main, rates
from training.gate.verdict import Measurement

RNG = np.random.default_rng(6)
OLD = RNG.normal(0.3, 0.3, 500)
CHANGE = RNG.normal(0.1, 0.15, 500)
EVIDENCE_OF = {
    "ndcg@10": Measurement(OLD + CHANGE, OLD),
    "tokens": Measurement(RNG.normal(5, 1, 300), RNG.normal(4, 1, 300)),
    "s_rand": Measurement(np.where(np.arange(300) < 20, np.nan, 0.1), np.full(300, 0.1)),
    "kl": Measurement(abs(RNG.normal(0, 0.1, 300)), None),
    "inflation": Measurement(RNG.normal(0.2, 0.1, 300), None),
    "latency": Measurement(RNG.normal(1, 0.1, 90), RNG.normal(1, 0.1, 90)),
    "memory": Measurement(np.array([1.1]), np.array([1.0]), exact=True),
}


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(
        {
            "window": 500,
            "resamples": 500,
            "goal": {"metrics": ["ndcg@10"]},
            "metrics": {
                "ndcg@10": {"direction": "higher", "margin": 0.02},
                "tokens": {"direction": "either", "margin": 0.5},
                "kl": {"direction": "lower", "high": 0.5},
            },
            **changes,
        }
    )


def test_evidence_comes_back_as_it_was(tmp_path: Path) -> None:
    save_evidence(EVIDENCE_OF, tmp_path / EVIDENCE)
    found = read_evidence(tmp_path / EVIDENCE)
    assert found.keys() == EVIDENCE_OF.keys()
    for name, one in EVIDENCE_OF.items():
        assert found[name].exact == one.exact
        assert np.array_equal(found[name].candidate, one.candidate, equal_nan=True)
        assert (found[name].incumbent is None) == (one.incumbent is None)


def test_a_candidate_is_made_as_good_and_as_variable_as_it_was() -> None:
    made = as_good(EVIDENCE_OF, goal="ndcg@10", gain=0.02)
    for name, gain in (("ndcg@10", 0.02), ("tokens", 0.0), ("s_rand", 0.0)):
        old = made[name].incumbent
        assert old is not None
        assert np.nanmean(made[name].candidate - old) == pytest.approx(gain, abs=1e-9)
        assert np.nanstd(made[name].candidate) == pytest.approx(np.nanstd(EVIDENCE_OF[name].candidate))
    assert made["inflation"].candidate.mean() == pytest.approx(0.0, abs=1e-9)
    assert made["kl"] is EVIDENCE_OF["kl"]
    assert made["memory"] is EVIDENCE_OF["memory"]


def test_metrics_of_the_same_queries_stay_together() -> None:
    both = {"one": EVIDENCE_OF["ndcg@10"], "other": EVIDENCE_OF["ndcg@10"], **EVIDENCE_OF}
    found = drawn(both, 1000, np.random.default_rng(1))
    assert np.array_equal(found["one"].candidate, found["other"].candidate)
    assert {name: one.candidate.size for name, one in found.items()} == {
        **dict.fromkeys(("one", "other", "ndcg@10", "tokens", "s_rand", "kl", "inflation"), 1000),
        "latency": 90,
        "memory": 1,
    }


def test_equal_checkpoints_pass_as_seldom_as_the_level_says_and_better_ones_often() -> None:
    equal = rates(EVIDENCE_OF, policy(), gain=0.0, queries=500, windows=300, seed=1)
    better = rates(EVIDENCE_OF, policy(), gain=0.05, queries=500, windows=60, seed=1)
    assert equal.get("PASS", 0.0) < 0.09  # 0.05, and three standard errors
    assert equal.get("FAIL", 0.0) < 0.09
    assert equal["held up by ndcg@10"] > 0.9
    assert better["PASS"] > 0.95
    assert sum(equal.get(name, 0.0) for name in ("PASS", "FAIL", "INCONCLUSIVE", "ERROR")) == pytest.approx(1)


def test_without_the_goal_nothing_can_be_said() -> None:
    with pytest.raises(ValueError, match="none of the goals"):
        rates({"kl": EVIDENCE_OF["kl"]}, policy(), gain=0.0, queries=10, windows=1, seed=1)


def test_the_command_keeps_a_row_for_each_gain_and_window(tmp_path: Path) -> None:
    save_evidence(EVIDENCE_OF, tmp_path / EVIDENCE)
    given = tmp_path / "policy.toml"
    given.write_text(
        'window = 9\nresamples = 100\n[goal]\nmetrics = ["ndcg@10"]\n'
        '[metrics."ndcg@10"]\ndirection = "higher"\nmargin = 0.02\n'
    )
    out = tmp_path / "power.json"
    words = ["--evidence", str(tmp_path), "--policy", str(given), "--windows", "2", "--json", str(out)]
    assert main(words) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len({(row["gain"], row["queries"]) for row in rows}) == len(rows) == 15
