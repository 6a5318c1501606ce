"""What a loop costs, told per step."""

from __future__ import annotations

from training.bench_loop import rows_of


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
