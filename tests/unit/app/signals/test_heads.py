"""The relevance model as the stages see it: by the deadline or not at all, and a failure is a value."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakes import FakeRelevance

from app.contracts.reasons import Reason
from app.errors import RelevanceError
from app.relevance.base import Content
from app.rewrite.deadline import Deadline
from app.signals.heads import Heads
from app.signals.typical import TypicalSeconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.relevance.base import Floats

DOCUMENTS = [Content("rn jobs", image=(1.0, 2.0)), Content("red shoes")]
SOON = Deadline(at_s=100.0, source="default")


@dataclass
class Clock:
    """Stands still unless told."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class SlowRelevance(FakeRelevance):
    """Each scored document takes `seconds` of the clock."""

    clock: Clock = field(default_factory=Clock)
    seconds: float = 1.0

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        self.clock.now_s += self.seconds * len(documents)
        return await super().score(query, documents)


def ask(relevance: FakeRelevance | None, head: str, deadline: Deadline = SOON) -> Any:
    heads = Heads(relevance, clock=Clock())

    async def scenario() -> Any:
        if head == "embed":
            return await heads.embed(["rn"], deadline)
        if head == "similarities":
            return await heads.similarities(np.ones((1, 8), dtype=np.float32), DOCUMENTS, deadline)
        return await heads.scores(["rn"], DOCUMENTS, deadline)

    return asyncio.run(scenario())


@pytest.mark.parametrize("head", ["embed", "similarities", "scores"])
def test_without_a_model_or_time_there_is_a_reason(head: str) -> None:
    assert ask(None, head) is Reason.RELEVANCE_UNAVAILABLE
    relevance = FakeRelevance()
    assert ask(relevance, head, Deadline(at_s=0.0, source="body")) is Reason.DEADLINE
    assert relevance.asked == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RelevanceError("no model"), Reason.RELEVANCE_UNAVAILABLE),
        (asyncio.CancelledError(), Reason.RELEVANCE_UNAVAILABLE),
        (RuntimeError("a bug"), Reason.RELEVANCE_ERROR),
    ],
)
@pytest.mark.parametrize("head", ["embed", "similarities", "scores"])
def test_a_failure_is_a_value_and_logged(
    head: str, error: BaseException, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    heads = {"embed": "embed_queries", "similarities": "embed_documents", "scores": "score"}
    assert ask(FakeRelevance(errors={heads[head]: error}), head) is reason
    assert [record.fields["reason"] for record in caplog.records] == [reason]  # type: ignore[attr-defined]


class Short(FakeRelevance):
    """One row or score less than asked for."""

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        return (await super().embed_queries(texts))[1:]

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        return (await super().embed_documents(documents))[1:]

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        return (await super().score(query, documents))[1:]


@pytest.mark.parametrize("head", ["embed", "similarities", "scores"])
def test_rows_that_do_not_belong_to_the_documents_are_an_error(head: str) -> None:
    assert ask(Short(), head) is Reason.RELEVANCE_ERROR


def test_scores_come_by_rewrite_and_document() -> None:
    assert ask(FakeRelevance(), "scores") == [[1.0, 0.5]]
    rows = ask(FakeRelevance(), "similarities")
    assert [len(row) for row in rows] == [2]
    assert all(isinstance(score, float) and math.isfinite(score) for score in rows[0])


def test_a_rewrite_that_fails_alone_loses_only_its_own_scores() -> None:
    class Picky(FakeRelevance):
        async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
            if query == "bad":
                raise RelevanceError("too long")
            return await super().score(query, documents)

    heads = Heads(Picky(), clock=Clock())
    assert asyncio.run(heads.scores(["rn", "bad"], DOCUMENTS, SOON)) == [[1.0, 0.5], [None, None]]
    assert asyncio.run(heads.scores(["bad"], DOCUMENTS, SOON)) is Reason.RELEVANCE_UNAVAILABLE


@pytest.mark.parametrize("image_dim", [0, 2])
def test_images_go_to_a_model_that_reads_them(image_dim: int) -> None:
    relevance = FakeRelevance(image_dim=image_dim)
    ask(relevance, "scores")
    ask(relevance, "similarities")
    images = [
        content.image for _, what in relevance.asked for content in what if isinstance(content, Content)
    ]
    assert images == [(1.0, 2.0) if image_dim else None, None] * 2


def test_work_that_misses_the_deadline_is_cancelled_and_left_even_where_it_does_not_obey() -> None:
    async def scenario() -> None:
        told, let_go = asyncio.Event(), asyncio.Event()

        class Stubborn(FakeRelevance):
            async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
                try:
                    return await super().score(query, documents)
                except asyncio.CancelledError:
                    told.set()
                    await let_go.wait()
                    raise RuntimeError("late and failed") from None

        relevance = Stubborn(gates={"score": asyncio.Event()})
        heads = Heads(relevance, clock=Clock())
        deadline = Deadline(at_s=0.01, source="body")
        assert await heads.scores(["rn"], DOCUMENTS, deadline) is Reason.DEADLINE
        await told.wait()
        let_go.set()

    asyncio.run(scenario())


def test_work_that_by_its_typical_time_cannot_finish_is_not_begun_until_the_estimate_has_shrunk() -> None:
    clock = Clock()
    relevance = SlowRelevance(clock=clock)
    heads = Heads(relevance, clock=clock)

    def scores(budget_s: float) -> Any:
        deadline = Deadline(at_s=clock.now_s + budget_s, source="default")
        return asyncio.run(heads.scores(["rn"], DOCUMENTS, deadline))

    assert scores(10.0) == [[1.0, 0.5]]  # two documents: a second each
    assert len(relevance.asked) == 1
    assert scores(1.5) is Reason.DEADLINE
    assert len(relevance.asked) == 1
    relevance.seconds = 0.1
    tries = 1
    while scores(1.5) is Reason.DEADLINE:
        tries += 1
    assert len(relevance.asked) == 2
    assert tries == 3  # 2 s, 1.8 s and 1.62 s are too much, 1.458 s is not


def test_work_that_was_cut_off_counts_as_slow() -> None:
    clock = Clock()
    relevance = SlowRelevance(clock=clock, gates={"score": asyncio.Event()})
    heads = Heads(relevance, clock=clock)

    def scores(budget_s: float) -> Any:
        deadline = Deadline(at_s=clock.now_s + budget_s, source="default")
        return asyncio.run(heads.scores(["rn"], DOCUMENTS, deadline))

    assert scores(0.01) is Reason.DEADLINE  # cut off when the clock had gone on by two seconds
    relevance.gates.clear()
    assert scores(1.5) is Reason.DEADLINE
    assert len(relevance.asked) == 1
    assert scores(2.5) == [[1.0, 0.5]]


def test_typical_seconds_are_per_item_and_follow_slowly() -> None:
    typical = TypicalSeconds()
    assert typical.fits(1000, 0.001)
    assert not typical.fits(1, 0.0)
    typical.saw(1.0, items=10)
    assert typical.fits(10, 1.0)
    typical.saw_cut_off(0.5, items=10)  # it is known to take longer than that
    assert typical.fits(10, 1.0)
    typical.saw_cut_off(2.0, items=10)
    assert not typical.fits(10, 1.0)
