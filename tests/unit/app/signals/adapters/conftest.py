"""The same signals for every engine, and the neutral ones."""

from __future__ import annotations

import pytest

from app.contracts.reasons import Reason
from app.relevance.base import Content
from app.rewrite.answer import Answer, Query, Rewrite
from app.signals import stages
from app.signals.records import Candidate, Signals

CANDIDATES = [
    Candidate('a"1\\', Content("red shoes"), rawrank=2.0, finerank=0.5),
    Candidate("b", Content("blue shoes"), rawrank=1.0, finerank=0.4),
    Candidate("c", Content("unknown"), rawrank=0.5),
]


def answer(*confidences: float, reason: Reason | None = None) -> Answer:
    return Answer(
        query=Query(text='in "blue"', query_id="q"),
        rewrites=tuple(Rewrite(f"blue shoes {n}", -0.5, c) for n, c in enumerate(confidences, start=1)),
        reason=reason,
        cache="miss",
        arm="stable",
        checkpoint_id="fake-1",
        weights_digest="5e" * 32,
    )


def signals_of(
    said: Answer, embeddings: list[list[float]] | Reason = Reason.RELEVANCE_UNAVAILABLE
) -> Signals:
    """Signals of three candidates, of which the last has no score: it is neutral."""
    scores = [[0.1, 0.4, None]] * len(said.rewrites)
    rankings = {
        stage: stages.neutral(CANDIDATES, stage, said.reason)
        if said.reason
        else stages.ranking(said, CANDIDATES, stage, scores, weight=1.0, max_factor=3.0)
        for stage in ("rawrank", "finerank")
    }
    return Signals(
        answer=said,
        remembered=False,
        recall=stages.recall(said, embeddings),
        rawrank=rankings["rawrank"],
        finerank=rankings["finerank"],
    )


@pytest.fixture
def signals() -> Signals:
    """One certain rewrite: factors 1/2 and 2, and a neutral one."""
    return signals_of(answer(1.0), [[0.6, 0.8]])


@pytest.fixture
def four() -> Signals:
    """As many rewrites as there may be, without embeddings."""
    return signals_of(answer(1.0, 0.8, 0.6, 0.4))


@pytest.fixture(params=list(Reason), ids=str)
def neutral(request: pytest.FixtureRequest) -> Signals:
    """What a reason leaves of them."""
    return signals_of(answer(reason=request.param))
