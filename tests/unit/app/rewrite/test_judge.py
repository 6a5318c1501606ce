from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from fakes import DIGEST, FakeCalibration, completion

from app.contracts.prompt import NO_CONTEXT
from app.contracts.reasons import Drop, Reason
from app.engines.base import Generation
from app.errors import EngineFailedError
from app.rewrite.guard import Limits
from app.rewrite.judge import judge

if TYPE_CHECKING:
    from app.rewrite.answer import Judged


def judged(
    *completions: Any, values: Any = lambda place: 0.9 - 0.1 * place, min_confidence: Any = 0.5
) -> Judged:
    return judge(
        "rn icu",
        NO_CONTEXT,
        Generation(tuple(completions), DIGEST, 5),
        checkpoint_id="fake-1",
        calibration=FakeCalibration(values=values),
        min_confidence=min_confidence,
        limits=Limits(),
    )


def test_survivors_are_ordered_by_confidence_then_logprob() -> None:
    result = judged(
        completion("a nurse", -1.0),
        completion("b nurse", -3.0),
        completion("c nurse", -2.0),
        values=[0.6, 0.9, 0.9].__getitem__,
    )
    assert [rewrite.text for rewrite in result.rewrites] == ["c nurse", "b nurse", "a nurse"]
    assert result.reason is None
    assert result.weights_digest == DIGEST


def test_confidence_counts_exactly_from_the_threshold() -> None:
    result = judged(completion("a nurse"), completion("b nurse"), values=[0.5, 0.499].__getitem__)
    assert [rewrite.text for rewrite in result.rewrites] == ["a nurse"]


def test_confidence_sees_what_the_guard_dropped() -> None:
    seen = []
    judged(completion("rn icu"), completion("a nurse"), values=lambda place: seen.append(place) or 0.9)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("texts", "min_confidence", "reason", "drops"),
    [
        (["RN-ICU", "a nurse"], 0.95, Reason.NO_CHANGE, {Drop.COPY: 1}),
        (["rn icu", "", ""], 0.5, Reason.NO_CHANGE, {Drop.COPY: 1, Drop.EMPTY: 2}),
        (["a nurse", "rn icu"], 0.95, Reason.LOW_CONFIDENCE, {Drop.COPY: 1}),
        (["", "a a a"], 0.5, Reason.GUARD, {Drop.EMPTY: 1, Drop.REPEATED_TOKENS: 1}),
        (["", "rn icu"], 0.5, Reason.GUARD, {Drop.EMPTY: 1, Drop.COPY: 1}),
    ],
)
def test_one_reason_where_nothing_is_left(
    texts: Any, min_confidence: Any, reason: Reason, drops: Any
) -> None:
    result = judged(*(completion(text) for text in texts), min_confidence=min_confidence)
    assert (result.rewrites, result.reason, result.drops) == ((), reason, drops)


def test_duplicates_keep_the_first() -> None:
    result = judged(completion("a nurse", -1), completion("A  Nurse", -2), values=lambda _: 0.9)
    assert [rewrite.text for rewrite in result.rewrites] == ["a nurse"]
    assert result.drops == {Drop.DUPLICATE: 1}


@pytest.mark.parametrize("logprob", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_the_engines_failure(logprob: Any) -> None:
    with pytest.raises(EngineFailedError):
        judged(completion("a nurse", logprob))
    with pytest.raises(EngineFailedError):
        judged()


def test_space_around_a_completion_is_no_part_of_the_rewrite() -> None:
    result = judged(completion(" a nurse\n"), completion("  rn icu "))
    assert [rewrite.text for rewrite in result.rewrites] == ["a nurse"]
    assert result.drops == {Drop.COPY: 1}
