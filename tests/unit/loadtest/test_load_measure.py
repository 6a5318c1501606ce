from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.measure import lag_p99_ms, measures, saturation, slope_per_min, windows
from loadtest.records import ALTERED, CUT, EVENTS, RETRIED, REWRITE, SHED, SIGNALS, Records


def add(records: Records, at: float, took_s: float = 0.1, **values: Any) -> None:
    row = {"intended": at, "sent": at, "done": at + took_s, "kind": REWRITE, "status": 200}
    records.add(row | values)


def some() -> Records:
    """Ten rewrites a second apart, the last one shed, the one before failed; and what else there is."""
    records = Records()
    for number in range(8):
        add(records, float(number), 0.1 * (number + 1), cache="hit" if number % 2 else "miss", arm="stable")
    add(records, 8.0, 0.001, status=0)
    add(records, 9.0, 0.001, status=429, flags=SHED)
    add(records, 2.5, 0.2, kind=SIGNALS, flags=CUT)
    add(records, 3.5, 0.4, kind=SIGNALS, reason="engine_unavailable", flags=RETRIED)
    add(records, 4.5, 0.0, kind=SIGNALS, reason="deadline", flags=ALTERED)
    add(records, 5.5, 0.5, kind=EVENTS)
    add(records, 6.5, 0.5, kind=EVENTS, status=503)
    return records


def test_every_kind_of_answer_is_told_apart() -> None:
    found = measures(some(), start_s=0.0, end_s=10.0)
    assert found["requests"] == 13
    assert found["journeys_per_s"] == 1.0
    assert found["answered_ratio"] == pytest.approx(11 / 13)
    assert found["shed_ratio"] == pytest.approx(1 / 13)
    assert found["failed_ratio"] == pytest.approx(1 / 13)
    # Nothing of a refusal, of a stage left out, nor of an answer without a rewrite for want of time.
    assert found["good_ratio"] == pytest.approx(9 / 13)
    assert found["rewrite_p50_ms"] == pytest.approx(400)
    assert found["rewrite_p99_ms"] == pytest.approx(800)
    assert found["signals_p50_ms"] == pytest.approx(200)
    assert found["events_p99_ms"] == pytest.approx(500)
    assert found["cut_ratio"] == pytest.approx(1 / 3)
    assert found["deadline_ratio"] == 0.0
    assert found["fallback_ratio"] == pytest.approx(1 / 11)
    assert found["retried_ratio"] == pytest.approx(1 / 11)
    assert found["hit_ratio"] == pytest.approx(4 / 8)
    assert found["altered"] == 1
    assert found["felt"] == 2  # the engine's failure, which another replica told, and a refused event


def test_only_what_was_intended_within_counts() -> None:
    found = measures(some(), start_s=7.0, end_s=9.0)
    assert found["requests"] == 2
    assert found["answered_ratio"] == 0.5
    assert found["signals_p50_ms"] is None
    assert measures(some(), start_s=20.0, end_s=21.0)["answered_ratio"] is None


def test_a_refusal_without_retry_after_is_a_failure() -> None:
    records = Records()
    add(records, 0.0, status=503)
    found = measures(records, start_s=0.0, end_s=1.0)
    assert (found["shed_ratio"], found["failed_ratio"]) == (0.0, 1.0)


def test_latency_counts_from_the_intended_start() -> None:
    records = Records()
    add(records, 1.0, 0.5, sent=1.4)
    assert measures(records, start_s=0.0, end_s=2.0)["rewrite_p50_ms"] == pytest.approx(500)


def test_the_generator_is_as_late_as_its_sending_or_its_clock() -> None:
    records = Records()
    for number in range(100):
        add(records, float(number), sent=number + (0.05 if number > 90 else 0.001))
    span = {"start_s": 0.0, "end_s": 100.0}
    assert lag_p99_ms(records, [], **span) == pytest.approx(50)
    assert lag_p99_ms(records, [(5.0, 0.2)], **span) == pytest.approx(200)
    assert lag_p99_ms(records, [(500.0, 0.2)], **span) == pytest.approx(50)
    assert lag_p99_ms(records, [], start_s=0.0, end_s=50.0) == pytest.approx(1)


def test_windows_hold_what_was_intended_in_them() -> None:
    first, *_, last = windows(some(), seconds=10.0, width_s=2.0)
    assert (first["at_s"], last["at_s"]) == (0.0, 8.0)
    assert (first["journeys_per_s"], first["answered_per_s"], first["good_ratio"]) == (1.0, 1.0, 1.0)
    assert (last["answered_per_s"], last["shed_per_s"], last["failed_per_s"]) == (0.0, 0.5, 0.5)
    assert last["rewrite_p50_ms"] is None


def steps(*good: float | None) -> list[dict[str, Any]]:
    return [
        {"at_s": 5.0 * number, "good_ratio": ratio, "intended_per_s": float(number + 1)}
        for number, ratio in enumerate(good)
    ]


@pytest.mark.parametrize(
    ("good", "expected"),
    [
        ((1.0, 1.0, 1.0, 0.5, 0.4), 3.0),
        ((1.0, 0.95, 0.949, 0.94), 2.0),
        ((1.0, 0.9, 1.0, 0.5, 0.4), 3.0),  # one alone may be chance
        ((1.0, None, 1.0, 1.0), 4.0),  # never saturated: so much at least
        ((0.5, 0.4, 1.0), None),
        ((), None),
    ],
)
def test_saturation_is_before_two_bad_windows_in_a_row(
    good: tuple[float | None, ...], expected: float | None
) -> None:
    assert saturation(steps(*good), warm_s=0.0) == expected


def test_windows_in_which_it_warms_up_are_not_looked_at() -> None:
    assert saturation(steps(0.1, 0.1, 1.0, 1.0), warm_s=10.0) == 4.0


def test_growth_is_the_slope_of_a_line() -> None:
    samples = [(float(second), 100.0 + second / 60 * 3) for second in range(60)]
    assert slope_per_min(samples, start_s=10.0) == pytest.approx(3.0)
    assert slope_per_min([(at, 500.0) for at, _ in samples], start_s=0.0) == pytest.approx(0.0, abs=1e-9)
    assert slope_per_min(samples, start_s=58.0) is None


def test_records_keep_words_and_go_on_beyond_their_first_size(tmp_path: Path) -> None:
    records = Records()
    for number in range(3000):
        add(records, float(number), arm=("stable", "canary")[number % 2], reason=None)
    assert len(records.rows) == 3000
    assert records.is_word("arm", ["canary"]).sum() == 1500
    assert not records.is_word("reason", ["deadline"]).any()
    records.save(tmp_path / "records.npz")
    with np.load(tmp_path / "records.npz") as kept:
        assert kept["rows"]["intended"][-1] == 2999.0
        assert list(kept["words_arm"]) == ["", "stable", "canary"]
    assert records.rows.dtype.itemsize == 36
