from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.confidence import HIGHEST_ODDS, KINDS, WIDEST_LEAD, Calibration, Platt, features, kind_of
from app.contracts.prompt import NO_CONTEXT, Context


@dataclass(frozen=True)
class Scored:
    text: str
    logprob: float
    token_ids: tuple[int, ...] = (1, 2)


CALIBRATION = Calibration(0.4, {kind: Platt(1.0, (0.5, 0.25, 0.125)) for kind in KINDS})


def test_kinds() -> None:
    assert kind_of("bluetoth headphones", "bluetooth headphones", NO_CONTEXT) == "spelling"
    assert kind_of("truck hopper", "heavy and tractor-trailer truck drivers", NO_CONTEXT) == "vocabulary"
    assert kind_of("in blue", "nike shoes in blue", Context(previous_queries=("nike shoes",))) == "follow_up"


def test_features_of_two() -> None:
    both = [Scored("a", -1.0), Scored("b", -3.0, (1, 2, 3))]
    odds = math.log(math.exp(-1) / (1 - math.exp(-1)))
    assert features(both, 0) == (pytest.approx(odds), -0.5, 2.0)
    assert features(both, 1)[1:] == (-1.0, -2.0)


def test_certainty_is_bounded() -> None:
    assert features([Scored("a", 0.0)], 0)[0] == features([Scored("a", 1e-9)], 0)[0] == HIGHEST_ODDS
    assert features([Scored("a", -1e-3)], 0)[0] < HIGHEST_ODDS
    assert features([Scored("a", -1e9)], 0) == features([Scored("a", -2e9)], 0)


def test_a_lonely_completion_leads_by_the_bound() -> None:
    assert features([Scored("a", -1.0)], 0)[2] == WIDEST_LEAD


def test_confidence_is_the_logistic_of_the_weighted_features() -> None:
    both = [Scored("a", -1.0), Scored("b", -3.0)]
    first, _ = CALIBRATION.confidences("query", NO_CONTEXT, both)
    odds = math.log(math.exp(-1) / (1 - math.exp(-1)))
    assert first == pytest.approx(1 / (1 + math.exp(-(1.0 + 0.5 * odds - 0.125 + 0.25))))


@given(st.lists(st.floats(max_value=0, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_confidence_is_a_probability_whatever_the_log_probabilities(logprobs: list[float]) -> None:
    scored = [Scored(str(n), value) for n, value in enumerate(logprobs)]
    assert all(0 < c < 1 for c in CALIBRATION.confidences("q", NO_CONTEXT, scored))


def test_json_round_trip() -> None:
    assert Calibration.from_json(CALIBRATION.to_json()) == CALIBRATION


@pytest.mark.parametrize(
    "breakage",
    [
        "{",
        "[]",
        json.dumps({"version": 1}),
        CALIBRATION.to_json().replace('"version": 1', '"version": 2'),
        CALIBRATION.to_json().replace("0.125", "NaN"),
        CALIBRATION.to_json().replace('"spelling"', '"singing"'),
        replace(CALIBRATION, threshold=1.5).to_json(),
    ],
)
def test_a_broken_calibration_is_refused(breakage: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Calibration.from_json(breakage)
