"""The page of the proof: what it says is what the records say."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from training.canary.ab import AbConfig
from training.canary.ab_page import draw, page
from training.canary.checkpoints import _noted
from training.config import read_config


def compared(pair: str, traffic: str, metric: str = "changed") -> dict[str, Any]:
    return {
        "pair": pair,
        "traffic": traffic,
        "metric": metric,
        "scale": "relative",
        "treated": 0.38,
        "control": 0.4,
        "change": -0.05,
        "low": -0.08,
        "high": None,
    }


def rollout(name: str, *, failed: int = 0, faults: tuple[str, ...] = ()) -> dict[str, Any]:
    arms = {"canary": 400, "stable": 500, "holdout": 100}
    return {
        "name": name,
        "stages": ["recall", "finerank"],
        "searches": 1000,
        "faults": list(faults),
        "tally": {
            "failed": failed,
            "retried": 7,
            "resent": 3,
            "exposed": 55,
            "searches": arms,
            "changed": {arm: n / 2 for arm, n in arms.items()},
            "clicks": {arm: n / 4 for arm, n in arms.items()},
            "strict": {arm: n / 5 for arm, n in arms.items()},
            "impacted": {"canary": 300},
            "ndcg": {arm: n * 0.25 for arm, n in arms.items()},
            "squares": {arm: n * 0.0725 for arm, n in arms.items()},
        },
        "looks": [
            {"searches": 500, "ratio": 0.05, "gain": None, "low": None, "high": None},
            {"searches": 1000, "ratio": 0.25, "gain": 0.02, "low": -0.1, "high": 0.2},
        ],
        "status": {
            "last": {"state": "rolled_back", "why": "harm is shown: changed"},
            "comparisons": [
                compared("canary against stable", "all"),
                compared("canary against the holdout", "impacted", "strict"),
                compared("stable against the holdout", "all"),
                compared("canary against stable", "all", "latency_s"),
            ],
        },
    }


BEFORE = {"name": "before", "searches": 200, "tally": rollout("x")["tally"]}
BOUNDS = {
    "name": "bounds",
    "followed_s": {"killed": [0.2, 0.3, 0.9], "back": [0.1, 0.2, 0.3]},
    "crashes": [{"answered": 100, "counted": 90, "within_flush_s": 25, "failed": 0}],
}


def test_it_says_what_became_of_each_rollout() -> None:
    told = page([BEFORE, rollout("launch-1"), rollout("incident", faults=("a", "b"))], date(2026, 11, 22))
    assert "(2026-11-22): 2,200 searches" in told
    assert "**0 searches failed.**" in told
    ended = "rolled back: harm is shown: changed"
    assert f"| incident | recall, finerank | 1,000 | {ended} | 0 | 7 | 3 | 55 |" in told
    assert "- incident: a; b" in told


def test_launches_are_compared_and_what_is_not_known_is_not_made_up() -> None:
    told = page([rollout("launch-1"), rollout("incident")], date(2026, 11, 22))
    row = "| launch-1 | canary against stable | all | queries changed | 0.3800 | 0.4000 | -5.00% |"
    assert told.count(row + " -8.00% to ? |") == 1
    assert "| launch-1 | canary against the holdout | impacted | strict clicks |" in told
    assert "latency" not in told
    assert "incident | canary against" not in told


def test_what_people_saw_has_an_interval() -> None:
    told = page([rollout("launch-1")], date(2026, 11, 22))
    # A deviation of .1 over 400 searches.
    assert "| launch-1 | canary | 400 | 75% | 0.2500 ± 0.0098 | 0.5000 | 0.2500 | 0.2000 |" in told


def test_failures_are_told() -> None:
    told = page([rollout("launch-1", failed=2), rollout("launch-2", failed=1)], date(2026, 11, 22))
    assert "**3 searches failed.**" in told


def test_what_is_promised_in_seconds_has_a_worst_case() -> None:
    told = page([rollout("launch-1"), BOUNDS], date(2026, 11, 22))
    assert "| from the kill switch until all replicas give the original | 3 | 0.30 s | 0.90 s |" in told
    assert "never counted | 1 | 10 | 10 |" in told
    assert "within one flush interval | 1 | 40% | 40% |" in told


def test_it_is_drawn(tmp_path: Path) -> None:
    draw([BEFORE, rollout("launch-1"), BOUNDS], tmp_path / "ab.png")
    assert (tmp_path / "ab.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_is_one() -> None:
    config = read_config(Path("training/configs/ab.toml"), AbConfig)
    assert config.hack == "poisoned"


@pytest.mark.parametrize("header", ['{"a": {}}', '{"__metadata__": {"format": "pt"}, "a": {}}'])
def test_a_note_in_the_weights_leaves_the_tensors(header: str) -> None:
    file = len(header).to_bytes(8, "little") + header.encode() + b"tensors"
    noted = _noted(file, "twin")
    length = int.from_bytes(noted[:8], "little")
    assert length % 8 == 0
    assert noted[8 + length :] == b"tensors"
    assert b'"note": "twin"' in noted[8 : 8 + length]
    assert (b"format" in noted) == ("format" in header)


def test_what_did_not_end_by_itself_was_called_off() -> None:
    one = rollout("launch-2")
    one["status"]["last"]["state"] = "running"
    assert "| launch-2 | recall, finerank | 1,000 | called off, undecided | 0 |" in page(
        [one], date(2026, 11, 22)
    )
