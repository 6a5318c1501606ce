from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from loadtest.scenarios import Scenarios
from loadtest.slo import Limit, Slos, judge, limits_of
from training.config import read_config

ROOT = Path(__file__).parents[3]


def limit(measure: str, *scenarios: str, **end: float) -> Limit:
    return Limit(measure=measure, scenarios=scenarios, unit="u", why="w", **end)


SLOS = Slos(
    generator=(limit("lag", most=25.0),),
    slo=(limit("answered", least=0.999), limit("late", most=0.0), limit("late", "ramp", most=0.5)),
)
WELL = {"lag": 25.0, "answered": 0.999, "late": 0.0}


def test_a_limit_itself_is_kept() -> None:
    judged = judge(SLOS, "steady", WELL)
    assert judged.verdict == "PASS"
    assert [finding.limit.measure for finding in judged.findings] == ["lag", "answered", "late"]
    assert all(finding.holds for finding in judged.findings)


@pytest.mark.parametrize("broken", [{"answered": 0.998999}, {"late": 1e-9}])
def test_just_beyond_it_fails(broken: dict[str, float]) -> None:
    judged = judge(SLOS, "steady", WELL | broken)
    assert judged.verdict == "FAIL"
    assert [finding.limit.measure for finding in judged.findings if not finding.holds] == list(broken)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_was_not_measured_is_not_kept(value: float | None) -> None:
    assert judge(SLOS, "steady", WELL | {"answered": value}).verdict == "FAIL"
    assert judge(SLOS, "steady", {"lag": 1.0}).verdict == "FAIL"


def test_a_late_generator_has_shown_nothing_good_or_bad() -> None:
    late = {"lag": 25.001}
    assert judge(SLOS, "steady", WELL | late).verdict == "INVALID"
    assert judge(SLOS, "steady", WELL | late | {"answered": 0.5}).verdict == "INVALID"
    assert judge(SLOS, "steady", {"answered": 1.0, "late": 0.0}).verdict == "INVALID"


def test_the_later_limit_holds_where_it_is_for() -> None:
    assert judge(SLOS, "ramp", WELL | {"late": 0.5}).verdict == "PASS"
    assert judge(SLOS, "ramp", WELL | {"late": 0.51}).verdict == "FAIL"
    assert [one.most for one in limits_of(SLOS.slo, "ramp") if one.measure == "late"] == [0.5]


def test_a_limit_has_one_end() -> None:
    for ends in ({}, {"least": 0.0, "most": 1.0}):
        with pytest.raises(ValidationError, match="one of the two"):
            limit("x", **ends)


def test_a_limit_of_nothing_is_one() -> None:
    assert not limit("lost", most=0.0).holds(1.0)
    assert limit("lost", most=0.0).holds(0.0)
    assert not limit("share", least=0.0).holds(-0.1)


def test_the_files_in_the_folder_agree() -> None:
    scenarios = read_config(ROOT / "loadtest" / "scenarios.toml", Scenarios)
    slos = read_config(ROOT / "loadtest" / "slo.toml", Slos)
    names = {scenario.name for scenario in scenarios.scenario}
    for one in (*slos.generator, *slos.slo):
        assert set(one.scenarios) <= names, f"{one.measure} is for a scenario that there is not"
    judged = {scenario.name for scenario in scenarios.scenario if scenario.judged}
    for name in judged:
        assert "wrong_version" in {one.measure for one in limits_of(slos.slo, name)}, name
    calm = {scenario.name for scenario in scenarios.scenario if scenario.calm_s}
    for name in calm:
        assert "calm_good_ratio" in {one.measure for one in limits_of(slos.slo, name)}, name
    # All but the soak within 25 minutes, with some seconds each for the servers to start.
    rest = [scenario for scenario in scenarios.scenario if scenario.name != "soak"]
    assert sum(scenario.seconds + 15 for scenario in rest) < 22 * 60
