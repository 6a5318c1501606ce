from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtest.page import page
from loadtest.plots import draw

WINDOW = {
    "at_s": 0.0, "journeys_per_s": 5.0, "offered_per_s": 10.0, "answered_per_s": 10.0, "good_ratio": 1.0,
    "shed_per_s": 0.0, "failed_per_s": 0.0, "rewrite_p50_ms": 20.0, "rewrite_p99_ms": 80.0,
    "signals_p50_ms": None, "signals_p99_ms": None,
}  # fmt: skip


def scenario(name: str, verdict: str, **changes: Any) -> dict[str, Any]:
    finding = {
        "measure": "answered_ratio",
        "value": 0.5,
        "limit": "≥ 0.999",
        "unit": "200",
        "holds": verdict == "PASS",
    }
    told = {
        "name": name,
        "why": "to see",
        "commit": "def",
        "verdict": verdict,
        "unit_per_s": 7.5,
        "seconds": 60.0,
        "warm_s": 5.0,
        "measures": {"answered_ratio": 0.5, "journeys_per_s": 5.25, "rewrite_p99_ms": None},
        "findings": [finding],
        "rules_broken": {},
        "incidents": [],
        "steps": [WINDOW | {"intended_per_s": 5.0}, WINDOW | {"at_s": 5.0, "good_ratio": None}],
        "windows": [WINDOW, WINDOW | {"at_s": 1.0}],
        "memory": [[0.0, 300.0], [1.0, 301.0]],
        "saturation_per_s": 7.5,
    }
    return told | changes


def told(*scenarios: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "at": "2026-01-31T00:00:00+00:00",
        "commit": "abc",
        "machine": "2 cores",
        "corpus": "made-up job titles",
        "scale": 1.0,
        "unit": {
            "journeys_per_s": 7.5,
            "by": "ramp",
            "before": {"journeys_per_s": 8.0, "by": "a closed loop"},
        },
        "scenarios": list(scenarios),
    } | changes


SWAP = {"do": "swap", "to": "second", "start_s": 10.0, "end_s": 10.5, "refused": None, "as_meant": True}
COSTS = {
    "hit": {"loop_s": 0.001, "generator_s": 0.001},
    "miss": {
        "1": {"loop_s": 0.002, "engine_s": 0.004, "per_s": 200.0},
        "4": {"loop_s": 0.002, "engine_s": 0.018, "per_s": 55.0},
    },
    "signals": {"20": {"loop_s": 0.002, "relevance_s": 0.02}, "50": {"loop_s": 0.005, "relevance_s": 0.05}},
}
CHECK = {
    "queries": 2000, "exponent": 1.2, "beam_width": 4, "predicted_hit_ratio": 0.8, "measured_hit_ratio": 0.79,
    "bound_by": "engine", "predicted_cpu_s": 0.002, "measured_cpu_s": 0.0025,
    "predicted_per_s": 90.0, "measured_per_s": 100.0 }  # fmt: skip


def test_a_page_says_where_how_and_what_came_of_it() -> None:
    said = page(
        told(scenario("ramp", "PASS"), scenario("swap", "FAIL", incidents=[SWAP])),
        ["ramp.png", "saturation.png"],
    )
    assert "2026-01-31, at abc, 2 cores" in said
    assert "saturated by ramp (a closed loop: 8.0)" in said
    assert "| ramp | **PASS** | 5.2 | 50.000% |" in said
    assert "## swap: FAIL" in said
    assert "To see. 60 s; a rate of 1 is 7.5 journeys/s; at def." in said
    assert "| answered_ratio | 0.5 | ≥ 0.999 | 200 | **broken** |" in said
    assert "- at 10.0 s: swap to second, done after 0.5 s" in said
    assert said.index("![saturation](saturation.png)") < said.index("## ramp")
    assert said.count("![ramp](ramp.png)") == 1
    assert "shortened" not in said


def test_a_trial_is_no_result() -> None:
    assert "shortened to 0.1: a trial, and no result" in page(told(scale=0.1), [])


def test_what_was_not_run_says_why() -> None:
    lacking = {"name": "redis_killed", "why": "w", "verdict": "NOT RUN", "not_run": "no redis-server"}
    assert "| redis_killed | **NOT RUN** no redis-server |" in page(told(lacking), [])


def test_incidents_that_went_astray_and_rules_that_were_broken_stand_out() -> None:
    astray = SWAP | {"refused": "404: gone", "as_meant": False}
    said = page(
        told(scenario("swap", "FAIL", incidents=[astray], rules_broken={"the original was changed": 3})), []
    )
    assert "refused: 404: gone after 0.5 s (**not as it had to be**)" in said
    assert "- 3 times: the original was changed" in said


def test_capacity_is_extrapolated_and_says_so() -> None:
    said = page(told(costs=COSTS, checks=[CHECK]), [])
    assert "| rewrite, generated, beam of 4 | 2.00 | 18.00 | 0.00 | 0.00 |" in said
    assert "| Zipf(1.2) over 2,000, beam of 4 | 80.0% | 79.0% | 2.00 | 2.50 | 90.0 | 100.0 | 0.90 |" in said
    assert (
        "waits while the event loop computes, for 50% of that (beam of 1) or 9% of that (beam of 4)." in said
    )
    assert "**100,000 rewrites/s, extrapolated**: nobody has measured it" in said
    assert "GPU: not measured." in said


def test_pictures_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    lacking = {"name": "redis_killed", "why": "w", "verdict": "NOT RUN", "not_run": "no redis-server"}
    names = draw(told(scenario("ramp", "PASS", incidents=[SWAP]), lacking), tmp_path)
    assert names == ["ramp.png", "saturation.png"]
    for name in names:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 100_000
