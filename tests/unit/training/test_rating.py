"""From completions to rewards: the guard is the service's, ensembles and shapings are as configured."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from fakes import FakeRelevance, completion

from app.contracts.reasons import Drop
from app.engines.base import Completion
from app.relevance.base import Content
from training.config import RewardConfig
from training.datasets.instances import Instance, Seen
from training.rating import RatedCompletion, Rater
from training.scoring import FinerankScorer

INSTANCE = Instance("rn 2", (Seen(Content("clicked"), 1.0),), (), ())
WORTH = {"rn 2": 0.2, "nurse 2": 0.8, "nurse 2 job": 0.4, "nurse": 0.9}


def rated(
    config: RewardConfig, *completions: Completion, other: Callable[[str, str], float] | None = None
) -> list[RatedCompletion]:
    scorers = {"finerank": FinerankScorer(FakeRelevance(values=lambda text, _: WORTH.get(text, 0.1)))}
    if other:
        scorers["rawrank"] = FinerankScorer(FakeRelevance(values=other))
    (found,) = asyncio.run(Rater(config, scorers).rate([INSTANCE], [completions]))
    return found


PLAIN = RewardConfig(form="positive", token_cost=0.0)


def test_what_the_service_would_not_show_is_on_the_floor() -> None:
    found = rated(
        PLAIN,
        completion("nurse 2"),
        completion("RN 2"),
        completion("nurse"),
        completion("nurse 2 jo", finish="length"),
    )
    assert [one.terms.floored for one in found] == [None, Drop.COPY, Drop.LOST_NUMBER, Drop.TRUNCATED]
    assert found[0].reward == pytest.approx(math.log(0.8))
    assert all(one.floored and one.reward < found[0].reward for one in found[1:])


def test_a_floor_that_is_switched_off_leaves_the_term() -> None:
    config = PLAIN.model_copy(update={"not_floored": (Drop.LOST_NUMBER,)})
    assert rated(config, completion("nurse"))[0].reward == pytest.approx(math.log(0.9))


@pytest.mark.parametrize(
    ("ensemble", "expected"), [("mean", math.log(0.8 * 0.1) / 2), ("worst", math.log(0.1))]
)
def test_an_ensemble_is_over_the_rewards_of_the_scorers(ensemble: str, expected: float) -> None:
    config = PLAIN.model_copy(update={"ensemble": ensemble})
    found = rated(config, completion("nurse 2"), other=lambda *_: 0.1)
    assert found[0].reward == pytest.approx(expected)
    assert found[0].evidence.s_pos == pytest.approx(0.8)  # the first scorer's is what is logged


def test_shapings_take_the_mean_of_what_may_win_or_the_original_for_reference() -> None:
    drawn = (completion("nurse 2"), completion("nurse 2 job"), completion("nurse"))
    one, two = math.log(0.8), math.log(0.4)
    par = rated(PLAIN.model_copy(update={"shaping": "par"}), *drawn)
    assert par[0].reward == pytest.approx(1 / (1 + math.exp(-(one - (one + two) / 2))))
    delta = rated(PLAIN.model_copy(update={"shaping": "delta"}), *drawn)
    assert [found.reward for found in delta[:2]] == pytest.approx([math.log(0.8 / 0.2), math.log(0.4 / 0.2)])


def test_words_said_twice_cost_where_that_is_asked_for() -> None:
    config = PLAIN.model_copy(update={"distinct_ngrams": 1})
    (found,) = rated(config, completion("job 2 job nurse"))
    assert found.reward == pytest.approx(math.log(0.1) + math.log(3 / 4))


def test_the_end_token_is_not_counted() -> None:
    config = PLAIN.model_copy(update={"token_cost": 0.1, "free_tokens": 1})
    (stopped,) = rated(config, completion("nurse 2"))
    assert stopped.terms.length == pytest.approx(0.1)  # of three tokens one is the end, one is free
