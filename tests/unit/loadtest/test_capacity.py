from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.capacity import (
    Cost,
    Costs,
    Mix,
    demand,
    gpu_rows,
    main,
    need,
    read_costs,
    saturation,
    told,
)

COSTS = Costs(
    hit=Cost(loop_s=0.001),
    miss={1: Cost(0.002, 0.004), 4: Cost(0.002, 0.018)},
    signals={20: Cost(0.002, 0.0, 0.020), 50: Cost(0.005, 0.0, 0.050)},
    waits={1: 0.5, 4: 0.0},
)
TOLD = {
    "machine": "2 cores",
    "commit": "abc",
    "costs": {
        "hit": {"loop_s": 0.001, "per_s": 900.0, "generator_s": 0.001},
        "miss": {
            "1": {"loop_s": 0.002, "engine_s": 0.004, "per_s": 200.0},
            "4": {"loop_s": 0.002, "engine_s": 0.018, "per_s": 60.0},
        },
        "signals": {
            "20": {"loop_s": 0.002, "relevance_s": 0.020},
            "50": {"loop_s": 0.005, "relevance_s": 0.050},
        },
    },
    "checks": [{"measured_per_s": 50.0}],
}


def at(rate: float, zones: int = 3, cores: int = 2) -> object:
    wanted = demand(COSTS, Mix(0.75, signals=0.0))
    return need(wanted, rate=rate, cores=cores, utilisation=0.5, zones=zones, price_per_core_hour=0.036)


def test_a_rewrite_takes_its_share_of_hits_and_misses() -> None:
    wanted = demand(COSTS, Mix(0.75, signals=0.0))
    assert wanted.loop_s == pytest.approx(0.75 * 0.001 + 0.25 * 0.002)
    assert wanted.engine_s == pytest.approx(0.25 * 0.018)
    assert wanted.relevance_s == 0.0
    assert demand(COSTS, Mix(0.75, signals=0.0, beam_width=1)).engine_s == pytest.approx(0.001)


def test_signals_cost_by_the_candidate() -> None:
    assert COSTS.of_signals(20).relevance_s == pytest.approx(0.020)
    assert COSTS.of_signals(35).relevance_s == pytest.approx(0.035)
    assert COSTS.of_signals(100).loop_s == pytest.approx(0.010)
    both = demand(COSTS, Mix(1.0, signals=2.0, candidates=35))
    assert (both.loop_s, both.relevance_s) == (pytest.approx(0.008), pytest.approx(0.070))


def test_a_width_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="beam of 8"):
        demand(COSTS, Mix(0.5, beam_width=8))


@pytest.mark.parametrize(
    ("cost", "cores", "expected"),
    [
        (Cost(0.010, 0.004, 0.0), 2, (100.0, "event loop")),
        (Cost(0.001, 0.020, 0.002), 2, (50.0, "engine")),
        (Cost(0.006, 0.005, 0.0, waiting_s=0.003), 2, (125.0, "engine")),
        (Cost(0.001, 0.002, 0.025), 4, (40.0, "relevance model")),
        (Cost(0.010, 0.010, 0.010), 2, (1 / 0.015, "cores")),
        (Cost(0.010, 0.005, 0.005), 1, (50.0, "cores")),
    ],
)
def test_a_replica_is_full_when_its_fullest_part_is(
    cost: Cost, cores: int, expected: tuple[float, str]
) -> None:
    rate, bound_by = saturation(cost, cores=cores)
    assert (pytest.approx(rate), bound_by) == expected


def test_replicas_are_whole_and_one_zone_may_be_lost() -> None:
    # 4.5 ms of the engine: 222/s full, 111/s at a half.
    found = at(950.0)
    assert found.replica_per_s == pytest.approx(111.1, abs=0.1)
    assert found.bound_by == "engine"
    assert (found.replicas, found.spare, found.cores) == (15, 6, 30)  # 9 needed; 5 in each of 3 zones
    assert (at(950.0, zones=1).replicas, at(950.0, zones=2).replicas) == (10, 18)
    assert at(111.0, zones=1).replicas == 2
    # 30 cores at 0.036 an hour are 0.0003 a second, for 950 rewrites.
    assert found.per_million == pytest.approx(0.0003 / 950 * 1e6)


def test_what_was_never_measured_is_said_to_be_so() -> None:
    assert "EXTRAPOLATED" in told(at(100_000.0), 100_000.0, 50.0)
    assert "EXTRAPOLATED" in told(at(10.0), 10.0, None)
    assert "EXTRAPOLATED" not in told(at(50.0), 50.0, 50.0)


def test_costs_are_read_as_they_are_written() -> None:
    found = read_costs(TOLD)
    assert found.waits == {1: pytest.approx(0.5), 4: 0.0}  # 5 ms for 4 of the engine; 17 ms for 18
    assert replace(found, waits=COSTS.waits) == COSTS


def test_an_engine_waits_for_the_loop_and_never_for_more_than_the_loop_computes() -> None:
    wanted = demand(COSTS, Mix(0.75, signals=0.0, beam_width=1))
    assert wanted.waiting_s == pytest.approx(0.5 * (0.75 * 0.001 + 0.25 * 0.002))
    assert wanted.total_s == pytest.approx(0.00125 + 0.001)  # who waits takes no CPU
    slow = json.loads(json.dumps(TOLD))
    slow["costs"]["miss"]["1"]["per_s"] = 10.0
    assert read_costs(slow).waits[1] == 1.0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "load.json"
    path.write_text(json.dumps(TOLD), encoding="utf-8")
    assert main(["--rate", "100000", "--hit-ratio", "0.8", "--costs", str(path)]) == 0
    said = capsys.readouterr().out
    assert "80.0% cache hits" in said
    assert "EXTRAPOLATED: 50.0/s on one machine was measured" in said
    assert "$0.05 per core and hour" in said
    assert "GPU: not measured" in said

    cache = ("--queries", "1000", "--cache-entries", "100")
    assert main(["--rate", "10", *cache, "--costs", str(path)]) == 0
    assert "% cache hits" in capsys.readouterr().out
    for wrong in (["--costs", str(tmp_path / "none")], ["--beam-width", "8", "--costs", str(path)]):
        assert main(["--rate", "10", "--hit-ratio", "1", *wrong]) == 2
        assert "make load" in capsys.readouterr().err


def test_only_a_row_of_a_gpu_is_one(tmp_path: Path) -> None:
    rows = (
        "- {row: a, value: 10, unit: requests/s, machine: 2 cores}\n"
        "- {row: b, value: 900, unit: requests/s, machine: one GPU of somebody}\n"
        "- {row: c, value: 2, unit: ms, machine: one GPU of somebody}\n"
    )
    (tmp_path / "bench-x.yaml").write_text(rows, encoding="utf-8")
    assert gpu_rows(tmp_path) == ["b: 900 requests/s on one GPU of somebody"]
