"""The stages under one deadline: finerank is given up first, then rawrank, recall last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from fakes import FakeRelevance

from app.contracts.fusion import BREAK_EVEN
from app.contracts.reasons import Reason
from app.relevance.base import Content
from app.rewrite.answer import Answer, Query, Rewrite
from app.rewrite.deadline import Deadline
from app.signals.heads import Heads
from app.signals.records import Candidate
from app.signals.runner import StageRunner, Weights
from app.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.relevance.base import Floats
    from app.signals.records import Staged

CANDIDATES = [Candidate("a", Content("rn jobs"), 2.0, 0.5), Candidate("b", Content("red shoes"), 1.0, 0.4)]
ANSWER = Answer(
    query=Query(text="rn", query_id="q"),
    rewrites=(Rewrite("rn jobs", -0.5, 0.9),),
    reason=None,
    cache="miss",
    arm="stable",
    checkpoint_id="fake-1",
    weights_digest="5e" * 32,
)


@dataclass
class Paced(FakeRelevance):
    """Each head takes so many seconds of the clock, which is `now_s`."""

    now_s: float = 0.0
    queries_s: float = 0.125
    documents_s: float = 0.25
    score_s: float = 0.5
    began: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        self.began.append("embed_queries")
        self.now_s += self.queries_s
        return await super().embed_queries(texts)

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        self.began.append("embed_documents")
        self.now_s += self.documents_s
        return await super().embed_documents(documents)

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        self.began.append("score")
        self.now_s += self.score_s
        return await super().score(query, documents)


def staged(relevance: Paced, *budgets_s: float, answer: Answer = ANSWER) -> list[Staged]:
    """What comes of the stages with one budget after the other; the first may take any time."""
    metrics = Metrics()
    runner = StageRunner(
        Heads(relevance, clock=relevance.clock), weights=Weights(), metrics=metrics, clock=relevance.clock
    )

    async def scenario() -> list[Staged]:
        found = []
        for budget_s in (1e6, *budgets_s):
            relevance.began.clear()
            deadline = Deadline(at_s=relevance.now_s + budget_s, source="default")
            found.append(await runner.run(answer, CANDIDATES, deadline))
        return found

    return asyncio.run(scenario())


def reasons(found: Staged) -> list[Reason | None]:
    assert found.recall
    assert found.rawrank
    assert found.finerank
    return [found.recall.embedding_reason, found.rawrank.reason, found.finerank.reason]


@pytest.mark.parametrize(
    ("budget_s", "late", "began"),
    [
        (0.875, [], ["embed_queries", "embed_documents", "score"]),
        (0.874, ["finerank"], ["embed_queries", "embed_documents"]),
        (0.375, ["finerank"], ["embed_queries", "embed_documents"]),
        (0.374, ["rawrank", "finerank"], ["embed_queries"]),
        (0.125, ["rawrank", "finerank"], ["embed_queries"]),
        (0.124, ["recall", "rawrank", "finerank"], []),
        (0.0, ["recall", "rawrank", "finerank"], []),
    ],
)
def test_a_smaller_budget_gives_up_stages_from_the_last_to_the_first(
    budget_s: float, late: list[str], began: list[str]
) -> None:
    relevance = Paced()
    _, found = staged(relevance, budget_s)
    expected = [Reason.DEADLINE if stage in late else None for stage in ("recall", "rawrank", "finerank")]
    assert reasons(found) == expected
    assert relevance.began == began
    assert found.recall
    assert [query.text for query in found.recall.queries] == ["rn jobs"]  # which needs no model


def test_finerank_does_not_take_the_time_that_rawrank_could_not_use() -> None:
    relevance = Paced(score_s=0.0)
    _, found = staged(relevance, 0.2)
    assert reasons(found) == [None, Reason.DEADLINE, Reason.DEADLINE]
    assert relevance.began == ["embed_queries"]


def test_seconds_are_those_of_each_stage() -> None:
    (found,) = staged(Paced())
    assert found.seconds == {"recall": 0.125, "rawrank": 0.25, "finerank": 0.5}


def test_a_doubtful_rewrite_is_issued_at_recall_and_costs_the_ranking_stages_nothing() -> None:
    relevance = Paced()
    doubtful = Rewrite("red shoes", -2.0, BREAK_EVEN)
    (found,) = staged(relevance, answer=replace(ANSWER, rewrites=(*ANSWER.rewrites, doubtful)))
    (without,) = staged(Paced())
    assert found.recall
    assert [query.text for query in found.recall.queries] == ["rn jobs", "red shoes"]
    assert (found.rawrank, found.finerank) == (without.rawrank, without.finerank)
    assert relevance.began.count("score") == 1
