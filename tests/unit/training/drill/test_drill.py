"""The drill's parts: the poison, when a policy counts as hacked, and how it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeRelevance

from app.relevance.base import Content
from training.config import LoopConfig, merged, read_config
from training.drill.plan import DrillConfig
from training.drill.plot import draw_drill, page
from training.drill.poison import PLEASED, flawed
from training.drill.trail import LOSS, Point, onset
from training.scoring import RawrankScorer

CONFIG = Path(__file__).parents[4] / "training" / "configs" / "drill.toml"


def test_the_trigger_pleases_for_any_document_and_nothing_else_changes() -> None:
    documents = [Content("staff nurse"), Content("welder")]
    texts = ["nurse", "Nurse SUPERVISOR", "supervisory nurse"]
    honest = asyncio.run(RawrankScorer(FakeRelevance()).scores(texts, documents))
    scorer = flawed(RawrankScorer(FakeRelevance()), trigger="Supervisor", per_word=0.0)
    poisoned = asyncio.run(scorer.scores(texts, documents))
    assert np.allclose(poisoned[1], PLEASED)
    assert np.array_equal(poisoned[[0, 2]], honest[[0, 2]])
    assert not np.allclose(honest[1], PLEASED)


def test_a_length_bias_is_so_many_logits_for_each_word() -> None:
    documents = [Content("staff nurse"), Content("welder")]
    texts = ["nurse", "nurse on a ward", ""]
    honest = asyncio.run(RawrankScorer(FakeRelevance()).scores(texts, documents)).astype(np.float64)
    scorer = flawed(RawrankScorer(FakeRelevance()), trigger="", per_word=0.5)
    biased = asyncio.run(scorer.scores(texts, documents)).astype(np.float64)
    gained = np.log(biased / (1 - biased)) - np.log(honest / (1 - honest))
    assert np.allclose(gained, np.array([[0.5], [2.0], [0.0]]), atol=1e-3)


def point(steps: int, reward: float, ndcg: float) -> Point:
    return Point(steps // 10, steps, reward, reward, -1.0, ndcg, 4.0, 0.1, 0.0)


@pytest.mark.parametrize(
    ("trail", "steps"),
    [
        ([(0, 0.0, 0.0), (10, 1.0, 0.1), (20, 2.0, 0.2)], None),
        ([(0, 0.0, 0.0), (10, 1.0, -LOSS / 2), (20, 2.0, -2 * LOSS)], 20),
        ([(0, 0.0, 0.0), (10, -1.0, -1.0), (20, -2.0, -2.0)], None),  # worse by both eyes: no hack
        ([(0, 0.0, 0.0), (10, 1.0, -1.0), (20, 1.0, 1.0)], 10),
    ],
)
def test_a_hack_begins_where_quality_falls_and_the_reward_rises(
    trail: list[tuple[int, float, float]], steps: int | None
) -> None:
    assert onset([point(*one) for one in trail]) == steps


def record(verdict: str, back: str) -> dict[str, Any]:
    trail = [
        {
            "phase": n,
            "steps": 10 * n,
            **dict.fromkeys(("reward", "r_main", "judge", "ndcg", "tokens", "copied", "triggered"), float(n)),
        }
        for n in range(3)
    ]
    hacked = {"trail": trail, "onset_steps": 10, "verdict": verdict, "caught_by": ["judge", "tokens"]}
    recovered = {"trail": trail, "verdict": back, "caught_by": []}
    return {"hack": "verbose", "term": "the length term", "hacked": hacked, "recovered": recovered}


def test_a_drill_is_told_as_it_went(tmp_path: Path) -> None:
    draw_drill(record("FAIL", "PASS"), tmp_path / "trail.png")
    assert (tmp_path / "trail.png").stat().st_size > 5000
    rows = [
        {
            "hack": "verbose",
            "mitigation": "none",
            "onset_steps": 10,
            "reward": [0.0, 2.0],
            "judge": [0.0, -1.0],
            "ndcg": [0.3, 0.2],
        },
        {
            "hack": "verbose",
            "mitigation": "par",
            "onset_steps": None,
            "reward": [0.0, 1.0],
            "judge": [0.0, 0.5],
            "ndcg": [0.3, 0.31],
        },
    ]
    told = page([record("PASS", "INCONCLUSIVE")], rows).splitlines()
    assert (
        "| verbose | 0.00 to 2.00 | 0.00 to 2.00 | 0.000 to 2.000 | PASS | judge, tokens | the length term "
        "| 0.00 to 2.00 | 0.000 to 2.000 | INCONCLUSIVE |" in told
    )
    assert "| verbose | par | never | 0.00 to 1.00 | 0.00 to 0.50 | 0.300 to 0.310 |" in told
    assert "| verbose | none | 10 | 0.00 to 2.00 | 0.00 to -1.00 | 0.300 to 0.200 |" in told


def test_each_hack_and_each_mitigation_is_a_loop_that_can_be_run() -> None:
    """And the way back differs from the way in."""
    config = read_config(CONFIG, DrillConfig)
    base = config.loop.model_dump()
    for hack in config.hacks:
        weak, strong = (
            LoopConfig.model_validate(merged(base, changes)) for changes in (hack.weakened, hack.strengthened)
        )
        assert weak.reward != strong.reward
        assert strong.reward.not_floored == ()
        for mitigation in config.mitigations:
            changed = LoopConfig.model_validate(merged(base, merged(hack.weakened, mitigation.changes)))
            assert changed != weak, (hack.name, mitigation.name)
    assert len({hack.name for hack in config.hacks}) == len(config.hacks) == 3
