"""The verdict: each limit on both of its sides, what outweighs what, and that nothing missing is a number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from training.gate.policy import DEFAULT_POLICY, Policy, read_policy
from training.gate.statistics import LEAST, Floats, holm, sign_of
from training.gate.verdict import Decision, Measurement, State, Verdict, verdict_on

QUERIES = 400
NOISE = np.random.default_rng(5).normal(0.0, 0.1, QUERIES)
NOISE -= NOISE.mean()
WELL_OFF = {"goal": Measurement(NOISE + 1.0, NOISE)}


def policy(**rules: Any) -> Policy:
    return Policy.model_validate(
        {
            "window": QUERIES,
            "goal": {"metrics": ["goal", "second"]},
            "metrics": {
                "goal": {"direction": "higher", "margin": 0.0},
                "second": {"direction": "lower", "margin": 0.0, "required": False},
                **rules,
            },
        }
    )


def moved(by: float, *, level: float = 0.0) -> Measurement:
    """A candidate whose values differ by `by` on average, and from query to query by as much as NOISE."""
    return Measurement(level + by + NOISE, np.full(QUERIES, level))


def verdict(measured: Measurement, **rule: Any) -> Verdict:
    return verdict_on({**WELL_OFF, "x": measured}, policy(x=rule))


def of(found: Verdict, metric: str, limit: str) -> list[Decision]:
    return [one for one in found.decisions if (one.metric, one.limit) == (metric, limit)]


@pytest.mark.parametrize(
    ("direction", "by", "states"),
    [
        ("higher", -0.02, ["PASS"]),
        ("higher", -0.08, ["FAIL"]),
        ("higher", -0.05, ["INCONCLUSIVE"]),
        ("higher", +0.08, ["PASS"]),
        ("lower", +0.02, ["PASS"]),
        ("lower", +0.08, ["FAIL"]),
        ("lower", +0.05, ["INCONCLUSIVE"]),
        ("lower", -0.08, ["PASS"]),
        ("either", +0.02, ["PASS", "PASS"]),
        ("either", -0.02, ["PASS", "PASS"]),
        ("either", +0.08, ["PASS", "FAIL"]),
        ("either", -0.08, ["FAIL", "PASS"]),
        ("either", +0.05, ["PASS", "INCONCLUSIVE"]),
        ("either", -0.05, ["INCONCLUSIVE", "PASS"]),
    ],
)
def test_a_margin_on_both_sides(direction: str, by: float, states: list[str]) -> None:
    found = verdict(moved(by), direction=direction, margin=0.05)
    assert [one.state.name for one in of(found, "x", "margin")] == states
    assert found.state is max(State[state] for state in states)


@pytest.mark.parametrize(
    ("limit", "mean", "state"),
    [
        ("low", 0.53, "PASS"),
        ("low", 0.50, "INCONCLUSIVE"),
        ("low", 0.47, "FAIL"),
        ("high", 0.47, "PASS"),
        ("high", 0.50, "INCONCLUSIVE"),
        ("high", 0.53, "FAIL"),
    ],
)
@pytest.mark.parametrize("compared", [True, False])
def test_a_limit_on_both_sides(limit: str, mean: float, state: str, *, compared: bool) -> None:
    """Whatever the incumbent's mean, and where it has none."""
    incumbent = np.zeros(QUERIES) if compared else None
    found = verdict(Measurement(mean + NOISE, incumbent), direction="lower", **{limit: 0.5})
    (decision,) = of(found, "x", limit)
    assert (decision.state.name, decision.bound) == (state, 0.5)
    assert decision.candidate == pytest.approx(mean)


@pytest.mark.parametrize(("by", "state"), [(0.07, "PASS"), (0.05, "INCONCLUSIVE"), (0.03, "FAIL")])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_promotion_must_gain(by: float, state: str, sign: int) -> None:
    changed = moved(sign * by)
    rules = policy().model_dump()
    rules["goal"]["gain"] = 0.05
    rules["metrics"]["goal"]["direction"] = "higher" if sign > 0 else "lower"
    found = verdict_on({"goal": changed}, Policy.model_validate(rules))
    (decision,) = of(found, "goal", "goal")
    assert decision.state.name == state
    assert found.state is State[state]


def test_no_change_at_all_is_no_promotion_and_no_number_of_queries_helps() -> None:
    found = verdict_on({"goal": Measurement(NOISE, NOISE)}, policy())
    assert found.state is State.INCONCLUSIVE
    assert [one.needed for one in found.decisions] == [None, None]


def test_the_second_goal_counts_where_the_first_was_not_measured() -> None:
    """Of a goal that is not required: fewer is better there."""
    rules = policy().model_dump()
    rules["metrics"]["goal"]["required"] = False
    given = Policy.model_validate(rules)
    assert verdict_on({"second": moved(-0.05)}, given).state is State.PASS
    assert verdict_on({"second": moved(+0.05)}, given).state is State.FAIL
    found = verdict_on({}, given)
    assert (found.state, found.decisions[0].reason) == (State.ERROR, "none was measured")


@pytest.mark.parametrize(
    "measured",
    [
        {},
        {"x": Measurement(np.full(QUERIES, math.nan), np.zeros(QUERIES))},
        {"x": Measurement(np.array([]), np.array([]))},
        {"x": Measurement(np.full(QUERIES, math.inf), np.zeros(QUERIES))},
        {"x": Measurement(np.zeros(QUERIES), None)},
    ],
)
def test_what_is_missing_is_an_error_and_no_number(measured: dict[str, Measurement]) -> None:
    found = verdict_on({**WELL_OFF, **measured}, policy(x={"direction": "lower", "margin": 0.1}))
    assert found.state is State.ERROR
    (decision,) = of(found, "x", "margin")
    assert (decision.state, decision.candidate, decision.slack) == (State.ERROR, None, None)
    assert decision.reason


def test_what_is_not_required_may_be_missing_but_not_broken() -> None:
    rule = {"direction": "lower", "margin": 0.1, "required": False}
    assert verdict_on(WELL_OFF, policy(x=rule)).state is State.PASS
    broken = Measurement(np.full(QUERIES, math.inf), np.zeros(QUERIES))
    assert verdict_on({**WELL_OFF, "x": broken}, policy(x=rule)).state is State.ERROR


def test_queries_without_a_value_on_either_side_are_left_out() -> None:
    candidate, incumbent = NOISE.copy(), NOISE - 0.5
    candidate[:100], incumbent[50:200] = math.nan, math.nan
    (decision,) = of(
        verdict(Measurement(candidate, incumbent), direction="higher", margin=0.0), "x", "margin"
    )
    assert decision.slack is not None
    assert decision.slack.queries == 200
    assert decision.slack.mean == pytest.approx(0.5)


def test_error_outweighs_fail_outweighs_inconclusive_outweighs_pass() -> None:
    rules = {name: {"direction": "higher", "margin": 0.05} for name in ("good", "open", "bad", "none")}
    measured = {"good": moved(0.0), "open": moved(-0.05), "bad": moved(-0.2)}
    seen = []
    for names in (["good"], ["good", "open"], ["good", "open", "bad"], [*rules]):
        given = policy(**{name: rules[name] for name in names})
        seen.append(verdict_on({**WELL_OFF, **measured}, given).state.name)
    assert seen == ["PASS", "INCONCLUSIVE", "FAIL", "ERROR"]
    assert verdict_on(WELL_OFF, policy(), problems=["the window is old"]).state is State.ERROR
    found = verdict_on(
        {**WELL_OFF, **measured}, policy(**{name: rules[name] for name in ("good", "open", "bad")})
    )
    assert found.caught_by == ["bad"]


def test_few_queries_say_nothing_either_way() -> None:
    for by in (-5.0, 5.0):
        few = Measurement(by + NOISE[: LEAST - 1], np.zeros(LEAST - 1))
        (decision,) = of(verdict(few, direction="higher", margin=0.05), "x", "margin")
        assert (decision.state, decision.needed) == (State.INCONCLUSIVE, LEAST)
        enough = Measurement(by + NOISE[:LEAST], np.zeros(LEAST))
        assert of(verdict(enough, direction="higher", margin=0.05), "x", "margin")[0].state is not few


@pytest.mark.parametrize(("value", "state"), [(99.0, "PASS"), (101.0, "FAIL")])
def test_what_was_counted_is_sure(value: float, state: str) -> None:
    counted = Measurement(np.array([value]), np.array([50.0]), exact=True)
    found = verdict(counted, direction="lower", high=100.0)
    assert of(found, "x", "high")[0].state.name == state


def test_what_is_asked_for_is_enough() -> None:
    """As many queries more as it says, and four of five such windows settle it."""
    rng = np.random.default_rng(8)
    start = rng.normal(0.01, 0.1, 100)
    needed = sign_of(start, level=0.05, resamples=1000, seed=1).needed(0.05)
    assert needed is not None
    mean, spread = float(start.mean()), float(start.std())
    settled = [
        sign_of(rng.normal(mean, spread, needed), level=0.05, resamples=500, seed=1).p_above <= 0.05
        for _ in range(200)
    ]
    assert 0.7 < sum(settled) / 200 < 0.9


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]
    assert holm([0.04, 0.04], 0.05) == [False, False]
    assert holm([], 0.05) == []


def test_one_decision_of_many_is_corrected_for() -> None:
    """A change that fails alone is no proof beside nine others that were looked at."""
    rng = np.random.default_rng(2)
    values = rng.normal(0.0, 1.0, QUERIES)
    values += -0.095 - values.mean()
    rules = {f"x{number}": {"direction": "higher", "margin": 0.0} for number in range(10)}
    calm = Measurement(NOISE + 1, NOISE)
    given: dict[str, Measurement] = {
        **WELL_OFF,
        **dict.fromkeys(rules, calm),
        "x0": Measurement(values, 0 * values),
    }
    alone = verdict_on({**WELL_OFF, "x0": given["x0"]}, policy(x0=rules["x0"]))
    assert alone.state is State.INCONCLUSIVE
    assert sign_of(values, level=0.05, resamples=2000, seed=1).p_below < 0.05


def test_intervals_and_p_values_are_those_of_the_normal_where_it_holds() -> None:
    values: Floats = np.random.default_rng(3).normal(0.0, 1.0, 5000)
    values += 0.02 - values.mean()
    found = sign_of(values, level=0.05, resamples=4000, seed=1)
    error = values.std() / math.sqrt(5000)
    assert found.error == pytest.approx(error, rel=0.05)
    assert (found.low, found.high) == pytest.approx((0.02 - 1.645 * error, 0.02 + 1.645 * error), abs=2e-3)
    assert found.p_above == pytest.approx(0.0786, abs=0.02)
    assert found.p_above + found.p_below == pytest.approx(1.0, abs=0.01)
    with pytest.raises(ValueError, match="a mean of nothing is not 0"):
        sign_of(np.array([]), level=0.05, resamples=100, seed=1)


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ({"direction": "higher"}, "decides nothing"),
        ({"direction": "lower", "low": 1.0, "high": 1.0}, "must be below"),
        ({"direction": "lower", "margin": -1.0}, "margin"),
        ({"direction": "up", "margin": 1.0}, "direction"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        policy(x=rule)


def test_a_goal_has_a_rule_that_says_which_way() -> None:
    rules = policy().model_dump()
    for goal in ("nowhere", "x"):
        changed = rules | {"goal": {"metrics": [goal]}}
        changed["metrics"] = rules["metrics"] | {"x": {"direction": "either", "margin": 1.0}}
        with pytest.raises(ValidationError, match="whether higher or lower is better"):
            Policy.model_validate(changed)


def test_the_default_policy_is_read() -> None:
    assert read_policy(DEFAULT_POLICY).goal.metrics[0] == "ndcg@10"
