from __future__ import annotations

import pytest
from pydantic import ValidationError

from loadtest.scenarios import Incident, Scenario, Scenarios, Stretch, Traffic

BASE = {"name": "one", "why": "w", "stretches": [{"seconds": 60, "rate": 0.5}]}


def test_a_stretch_is_a_share_of_what_the_machine_can_do() -> None:
    piece = Stretch(seconds=60, rate=(0.2, 2.0)).piece(10.0, 0.5)
    assert (piece.seconds, piece.start, piece.end) == (30.0, 2.0, 20.0)
    assert Stretch(seconds=60, rate=0.5).piece(10.0, 1.0).end == 5.0


def test_what_a_scenario_needs_of_the_machine() -> None:
    assert Scenario(**BASE).needs == []
    assert Scenario(**BASE, redis=True, store="postgres").needs == ["redis-server", "initdb"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"incidents": [{"at": 61, "do": "replica_kill"}]}, "after the end"),
        ({"warm_s": 40, "calm_s": 20}, "nothing is left"),
        ({"incidents": [{"at": 1, "do": "redis_kill"}]}, "incident of redis"),
        ({"incidents": [{"at": 1, "do": "postgres_kill"}]}, "incident of postgres"),
        ({"store": "postgres", "incidents": [{"at": 1, "do": "store_slow"}]}, "incident of store"),
        ({"incidents": [{"at": 1, "do": "swap", "to": "second"}]}, "need `judged`"),
        ({"slow_store": True}, "needs store"),
        ({"incidents": [{"at": 1, "do": "explode"}]}, "do"),
    ],
)
def test_a_scenario_that_cannot_be_run_is_refused(changes: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        Scenario(**BASE, **changes)


def test_two_of_one_name_are_refused() -> None:
    traffic = Traffic(
        queries=1,
        zipf=1,
        clients=1,
        candidates=(1, 2),
        document_words=5,
        think_s=1,
        click_ratio=0,
        strict_ratio=0,
    )
    with pytest.raises(ValidationError, match="one name"):
        Scenarios(traffic=traffic, scenario=(Scenario(**BASE), Scenario(**BASE)))


def test_incidents_are_done_unless_they_have_to_fail() -> None:
    assert not Incident(at=1, do="swap", to="second").fails


def test_a_scenario_says_what_it_needs_of_the_machine() -> None:
    moved = Scenario(**BASE | {"incidents": [{"at": 1, "do": "clock_ahead"}]})
    assert (moved.needs, moved.moves_clocks) == (["faketime"], True)
    assert (Scenario(**BASE).needs, Scenario(**BASE).moves_clocks) == ([], False)
    assert Scenario(**BASE | {"redis": True, "store": "postgres"}).needs == ["redis-server", "initdb"]
