"""Evidence: rates weigh, every text and document is read once, each scorer in its own way."""

from __future__ import annotations

import asyncio
import math

import pytest
from fakes import FakeRelevance

from app.relevance.base import Content
from training.datasets.instances import Instance, Seen
from training.reward import Evidence
from training.scoring import FinerankScorer, OverlapScorer, RawrankScorer, Scorer, evidence

NURSE, WELDER, CLERK, BAKER = (Content(f"{word} job") for word in ("nurse", "welder", "clerk", "baker"))
INSTANCE = Instance("icu rn", (Seen(NURSE, 1.0), Seen(CLERK, 0.5)), (Seen(WELDER, 0.25),), (BAKER,))


def found(scorer: Scorer, *texts: str, instance: Instance = INSTANCE) -> list[Evidence]:
    (rows,) = asyncio.run(evidence(scorer, [instance], [texts]))
    return rows


def test_clicked_documents_weigh_by_their_rates() -> None:
    values = {"nurse": 0.9, "clerk": 0.3, "welder": 0.2, "baker": 0.1}
    relevance = FakeRelevance(values=lambda _query, text: values[text.split()[0]])
    (row,) = found(FinerankScorer(relevance), "nurse")
    assert (row.s_pos, row.s_neg, row.s_rand) == pytest.approx(((0.9 + 0.5 * 0.3) / 1.5, 0.2, 0.1))


def test_what_an_instance_lacks_is_none() -> None:
    (row,) = found(
        FinerankScorer(FakeRelevance()), "nurse", instance=Instance("rn", (Seen(NURSE, 1.0),), (), ())
    )
    assert row.s_neg is row.s_rand is None
    assert found(FinerankScorer(FakeRelevance())) == []


def test_the_bi_encoder_embeds_every_text_and_document_once() -> None:
    relevance = FakeRelevance()
    instances = [INSTANCE, Instance("rn", (Seen(NURSE, 1.0),), (), (BAKER,))]
    asyncio.run(evidence(RawrankScorer(relevance), instances, [["nurse", "rn nurse"], ["nurse", "nurse"]]))
    texts = [text for head, what in relevance.asked if head == "embed_queries" for text in what]
    documents = [one for head, what in relevance.asked if head == "embed_documents" for one in what]
    assert sorted(texts) == ["nurse", "rn nurse"]
    assert len(documents) == len(set(documents)) == 4


def test_both_heads_say_what_the_model_says() -> None:
    relevance = FakeRelevance()

    async def direct() -> tuple[float, float]:
        query = (await relevance.embed_queries(["nurse"]))[0]
        (rawrank,) = relevance.similarity(query, await relevance.embed_documents([BAKER]))
        (finerank,) = await relevance.score("nurse", [BAKER])
        return rawrank, finerank

    rawrank, finerank = asyncio.run(direct())
    assert found(RawrankScorer(relevance), "nurse")[0].s_rand == pytest.approx(rawrank)
    assert found(FinerankScorer(relevance), "nurse")[0].s_rand == pytest.approx(finerank)


def test_one_text_twice_has_the_same_evidence_twice() -> None:
    first, _, again = found(FinerankScorer(FakeRelevance()), "nurse", "welder", "nurse")
    assert first == again


def test_the_proxy_weighs_rare_words_more() -> None:
    scorer = OverlapScorer(["nurse job", "welder job", "clerk job"])
    rare, common = math.log1p(3 / 1), math.log1p(3 / 3)
    (row,) = asyncio.run(scorer.scores(["nurse"], [Content("nurse job"), Content("welder job")]))
    assert row.tolist() == pytest.approx([rare / (rare + common), 0.0])
    (unknown,) = asyncio.run(scorer.scores(["zebra"], [Content("zebra"), Content("")]))
    assert unknown.tolist() == pytest.approx([1.0, 0.0])
