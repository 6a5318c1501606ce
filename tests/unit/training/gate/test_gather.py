"""What is measured of answers: each metric of two that differ in it alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import completion

from app.contracts.reasons import Drop
from app.engines.base import Completion
from training.gate.gather import INFLATION, Answers, distinct, measure
from training.gate.verdict import Measurement
from training.rating import RatedCompletion
from training.reward import Evidence, Reward


def rated(ranking: float, *, drop: Drop | None = None, s_rand: float | None = 0.1) -> RatedCompletion:
    terms = Reward(-40.0 if drop else ranking, ranking, 0.0, 0.0, drop)
    return RatedCompletion(completion("x"), terms.total, terms, Evidence(0.5 + ranking / 100, 0.2, s_rand))


def answers(
    texts: list[str], rewards: list[float], judged: list[float], drops: Sequence[Drop | None] = (None, None)
) -> Answers:
    said = [Completion(text, (3,) * len(text.split()) + (1,), -1.0, "stop") for text in texts]
    found = [rated(value, drop=drop) for value, drop in zip(rewards, drops, strict=False)]
    return Answers(said, found, [rated(value) for value in judged])


@pytest.fixture
def measured() -> dict[str, Measurement]:
    incumbent = answers(["staff nurse", "mig welder"], [1.0, 2.0], [0.5, 0.9])
    candidate = answers(["registered staff nurse", "welder"], [3.0, 1.0], [1.0, 0.9], [None, Drop.TRUNCATED])
    return measure(candidate, incumbent)


def changes(measured: Measurement) -> list[float]:
    assert measured.incumbent is not None
    return list(measured.candidate - measured.incumbent)


def test_rewards_and_the_judge(measured: dict[str, Measurement]) -> None:
    assert changes(measured["r_main"]) == [2.0, -1.0]
    assert changes(measured["judge"]) == [0.5, 0.0]
    assert changes(measured["improved"]) == [1.0, -1.0]  # what the guard would drop is on the floor
    assert changes(measured["s_pos"]) == pytest.approx([0.02, -0.01])
    deviations = [2.0 / 0.5 - INFLATION * 0.5 / 0.2, -1.0 / 0.5]  # of 1 and 2, of .5 and .9
    assert list(measured["inflation"].candidate) == pytest.approx(deviations)
    assert measured["inflation"].incumbent is None


def test_what_is_written(measured: dict[str, Measurement]) -> None:
    assert list(measured["tokens"].candidate) == [3.0, 1.0]  # its end is no token of it
    assert list(measured["truncated"].candidate) == list(measured["guarded"].candidate) == [0.0, 1.0]
    assert changes(measured["guarded"]) == [0.0, 1.0]
    assert not measured["copied"].candidate.any()
    copy = answers(["a"], [1.0], [1.0], [Drop.COPY])
    found = measure(copy, copy)
    assert (list(found["copied"].candidate), list(found["guarded"].candidate)) == ([1.0], [0.0])


def test_what_no_document_tells_is_no_number() -> None:
    one = answers(["a"], [1.0], [1.0])
    without = Answers(one.said, [rated(1.0, s_rand=None)], one.judged)
    assert np.isnan(measure(without, one)["s_rand"].candidate).all()


def test_a_judge_to_whom_all_is_alike_tells_no_inflation() -> None:
    one = answers(["a", "b"], [1.0, 2.0], [1.0, 1.0])
    assert np.isnan(measure(one, one)["inflation"].candidate).all()


def test_who_says_the_same_to_everybody_is_not_distinct() -> None:
    assert list(distinct(["staff nurse", "mig welder"])) == [1.0, 1.0]
    assert list(distinct(["staff nurse", "Staff Nurse", "nurse"])) == [0.5, 0.5, 1.0]
    assert list(distinct(["a b c", "a b", ""])) == [0.75, 0.5, 0.0]
    assert distinct(["best jobs near me"] * 100).mean() == pytest.approx(0.01)
