"""The study of judges: what it simulates has the effect that it says, and each judge sees it in its way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.rollout import LAUNCH
from app.rollout.assignment import BUCKETS, Split
from app.rollout.evidence import CANARY, MEASURES, STABLE, Period, members
from app.rollout.plan import Plan, read_plan
from training.canary import study
from training.canary.crowd import RATES, Crowd
from training.canary.judges import LEAST_LOOKS, MannWhitney, Sequential, ZTest
from training.canary.page import page, summary
from training.canary.study import End, effects_of, main, simulate

PLAN = read_plan(LAUNCH.read_text(encoding="utf-8"))


def half() -> Period:
    nothing = np.zeros((BUCKETS, len(MEASURES)))
    return Period(Split("study", 0.0, "a salt", 0.5), {"all": nothing, "impacted": nothing})


def test_success_is_a_query_that_needs_no_change() -> None:
    effects = effects_of(-0.1)
    assert 1 - RATES["changed"] * effects["changed"] == pytest.approx(0.9 * (1 - RATES["changed"]))
    assert effects["strict"] == 0.9
    assert effects_of(0.0) == {"changed": pytest.approx(1.0), "strict": 1.0}


def test_the_canarys_clients_alone_have_the_effect() -> None:
    crowd, period = Crowd(np.random.default_rng(1), 2_000_000), half()
    found = crowd.between_looks(period, 0, {"strict": 0.8, "latency_s": 1.5})
    rates = {}
    for group in (CANARY, STABLE):
        whole = found[members(period.split)[group]].sum(axis=0)
        rates[group] = whole / whole[0]
    strict, latency = MEASURES.index("strict"), MEASURES.index("latency_s")
    assert rates[CANARY][strict] / rates[STABLE][strict] == pytest.approx(0.8, abs=0.02)
    assert rates[CANARY][latency] / rates[STABLE][latency] == pytest.approx(1.5, abs=0.02)
    assert rates[STABLE][1] == pytest.approx(RATES["changed"], abs=0.01)


def test_buckets_differ_in_how_often_and_in_how_well() -> None:
    """Or else a test over searches would do as well as one over buckets."""
    found = Crowd(np.random.default_rng(1), 1_000_000).between_looks(half(), 0, {})
    searches, changed = found[:, 0], found[:, 1]
    assert searches.std() > 0.9 * searches.mean()  # as an exponential distribution has it
    rates = changed[searches > 50] / searches[searches > 50]
    assert rates.std() > 2 * np.sqrt(0.3 * 0.7 / 50)


@pytest.mark.parametrize(
    ("success", "action"), [(-0.3, "rolled back"), (0.3, "promoted")], ids=["harm", "gain"]
)
@pytest.mark.parametrize("judge", [Sequential, ZTest, MannWhitney])
def test_what_nobody_can_miss_is_not_missed(success: float, action: str, judge: type) -> None:
    end = simulate(PLAN, success, judge, seed=3)
    assert end.action == action
    assert 0 < end.exposed < end.searches


def test_ours_takes_its_time_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "MOST_LOOKS", 30)
    end = simulate(PLAN, 0.0, Sequential, seed=3)
    assert end == End("neither", pytest.approx(30 * study.SEARCHES, rel=0.01), end.exposed)


def test_where_the_past_is_known_harm_is_shown_sooner() -> None:
    alone = simulate(PLAN, -0.05, Sequential, seed=3)
    known = simulate(PLAN, -0.05, Sequential, seed=3, past=study.PAST_SEARCHES)
    assert known.action == alone.action == "rolled back"
    assert known.exposed < alone.exposed


def looked_at(judge: ZTest | MannWhitney, looks: int, success: float) -> list[str]:
    """What it says at each look at two halves of the traffic."""
    crowd, period = Crowd(np.random.default_rng(5), 20_000), half()
    two = Plan.model_validate(PLAN.model_dump() | {"steps": PLAN.model_dump()["steps"][-2:]})
    said = []
    for number in range(looks):
        period.sums["all"][:] += crowd.between_looks(period, number, effects_of(success))
        said.append(judge.look(two, [period], 0))
    return said


def test_a_test_of_a_horizon_looks_once_there() -> None:
    said = looked_at(ZTest(horizon=35_000), 8, -0.2)
    assert said.count("rollback") == 1
    assert said[3] == "rollback"  # the first look with so many searches of the canary
    assert set(said[4:]) == {"wait"}
    assert looked_at(ZTest(), 8, -0.2)[:3] == ["rollback"] * 3


def test_a_rank_test_waits_for_enough_looks() -> None:
    said = looked_at(MannWhitney(), LEAST_LOOKS + 1, -0.2)
    assert set(said[: LEAST_LOOKS - 1]) == {"wait"}
    assert said[LEAST_LOOKS - 1 :] == ["rollback"] * 2


def test_the_page_counts_ends() -> None:
    back = {"action": "rolled back", "searches": 9000.0, "exposed": 2000.0}
    promoted = {"action": "promoted", "searches": 70_000.0, "exposed": 1.0}
    rows = summary(
        {"same | ours": [back, back, promoted, {**back, "action": "neither"}], "+1 % | ours": [back]}
    )
    told = page(rows)
    assert "| same | ours | 4 | 50.0% | 25.0% | 25.0% | 2 | 70 |" in told
    assert "| +1 % | ours | 1 | 100.0% | 0.0% | 0.0% | 2 |  |" in told


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "SUCCESS", {"-10 %": -0.3})
    monkeypatch.setattr(study, "JUDGES", {"ours": Sequential, "theirs": ZTest})
    known = [{"action": "promoted", "searches": 1.0, "exposed": 1.0}] * 2
    file = tmp_path / "run" / "ends.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"-10 % | ours": known}))
    monkeypatch.setattr(study, "draw", lambda *_: None)
    folders = ["--run-dir", str(file.parent), "--out", str(tmp_path)]
    assert main(["--runs", "2", "--processes", "1", *folders]) == 0
    found = json.loads(file.read_text())
    assert found["-10 % | ours"] == known
    assert [end["action"] for end in found["-10 % | theirs"]] == ["rolled back"] * 2
    assert "| -10 % | theirs | 2 | 100.0% |" in (tmp_path / "README.md").read_text()
    assert [row["judge"] for row in json.loads((tmp_path / "canary.json").read_text())] == ["ours", "theirs"]
