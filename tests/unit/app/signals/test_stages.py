"""The algebra of the stages: neutral bit for bit, bounded, complete, blind to the order of candidates."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.fusion import BREAK_EVEN, rank_weight
from app.contracts.reasons import STAGE_REASONS, Reason
from app.relevance.base import Content
from app.rewrite.answer import Answer, Query, Rewrite
from app.signals import stages
from app.signals.records import Candidate

MAX_FACTOR = 3.0


def answer(*confidences: float, reason: Reason | None = None) -> Answer:
    return Answer(
        query=Query(text="rn", query_id="q"),
        rewrites=tuple(Rewrite(f"rewrite {n}", -0.5, confidence) for n, confidence in enumerate(confidences)),
        reason=reason,
        cache="miss",
        arm="stable",
        checkpoint_id="fake-1",
        weights_digest="5e" * 32,
    )


def candidates(*bases: float | None) -> list[Candidate]:
    return [
        Candidate(f"d{n}", Content(f"text {n}"), rawrank=base, finerank=base) for n, base in enumerate(bases)
    ]


finite = st.floats(allow_nan=False, allow_infinity=False)
bases = st.lists(st.one_of(st.none(), finite), min_size=1, max_size=12)
anything = st.one_of(st.none(), st.floats())


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Answer, list[Candidate], list[list[float | None]]]:
    """An answer with a trusted rewrite, candidates, and whatever a relevance model may say of them."""
    found = candidates(*draw(bases))
    sure, others = draw(st.floats(0.21, 1)), draw(st.lists(st.floats(0, 1), max_size=3))
    said = answer(*sorted([sure, *others], reverse=True))
    row = st.lists(anything, min_size=len(found), max_size=len(found))
    return said, found, [draw(row) for _ in stages.trusted(said)]


def ranked(scores: list[float | None]) -> list[int]:
    """Places by score, best first, missing ones last; ties as they came."""
    return sorted(
        range(len(scores)), key=lambda n: -math.inf if (s := scores[n]) is None else s, reverse=True
    )


def test_the_factor_weighs_the_rewrite_by_its_confidence() -> None:
    found = stages.ranking(
        answer(0.5), candidates(2.0, 2.0), "rawrank", [[0.4, 0.1]], weight=1.0, max_factor=MAX_FACTOR
    )
    b = rank_weight(0.5, 1.0)
    assert [document.phi for document in found.documents] == pytest.approx([2**b, 0.5**b])
    assert [document.score for document in found.documents] == pytest.approx([2 * 2**b, 2 * 0.5**b])
    assert [document.rewrite for document in found.documents] == [0.4, 0.1]
    assert found.reason is None


def test_each_stage_takes_its_own_base_score() -> None:
    both = [Candidate("d", Content(""), rawrank=12.0, finerank=0.5)]
    for stage, base in (("rawrank", 12.0), ("finerank", 0.5)):
        document = stages.neutral(both, stage, Reason.DEADLINE).documents[0]  # type: ignore[arg-type]
        assert (document.base_score, document.score) == (base, base)


@given(table=rankings(), weight=st.floats(0.01, 5), max_factor=st.floats(1, 100))
def test_every_candidate_is_there_once_in_its_place_with_a_bounded_factor(
    table: tuple[Answer, list[Candidate], list[list[float | None]]], weight: float, max_factor: float
) -> None:
    said, found, scores = table
    signals = stages.ranking(said, found, "finerank", scores, weight=weight, max_factor=max_factor)
    assert [document.id for document in signals.documents] == [candidate.id for candidate in found]
    for candidate, document in zip(found, signals.documents, strict=True):
        assert 1 / max_factor <= document.phi <= max_factor
        assert document.base_score == candidate.finerank
        assert document.score is None or math.isfinite(document.score)
        assert (document.score is None) == (candidate.finerank is None)
        if candidate.finerank is not None and candidate.finerank <= 0:
            assert document.score == candidate.finerank


@given(table=rankings(), data=st.data())
def test_permuting_candidates_permutes_signals(
    table: tuple[Answer, list[Candidate], list[list[float | None]]], data: st.DataObject
) -> None:
    said, found, scores = table
    order = data.draw(st.permutations(range(len(found))))

    def run(places: list[int]) -> stages.Ranking:
        return stages.ranking(
            said,
            [found[n] for n in places],
            "rawrank",
            [[row[n] for n in places] for row in scores],
            weight=1.0,
            max_factor=MAX_FACTOR,
        )

    straight = run(list(range(len(found))))
    assert run(list(order)).documents == tuple(straight.documents[n] for n in order)


@given(table=rankings(), place=st.integers(0, 11), bad=st.sampled_from([None, math.nan, 0.0, -1.0, math.inf]))
def test_a_candidate_whose_scores_are_missing_is_neutral(
    table: tuple[Answer, list[Candidate], list[list[float | None]]], place: int, bad: float | None
) -> None:
    said, found, scores = table
    place %= len(found)
    for row in scores:
        row[place] = bad
    document = stages.ranking(said, found, "rawrank", scores, weight=1.0, max_factor=MAX_FACTOR).documents[
        place
    ]
    assert (document.phi, document.rewrite) == (1.0, None)
    assert document.score == document.base_score


@pytest.mark.parametrize("reason", Reason)
@given(given_bases=bases)
def test_every_reason_leaves_the_original_ranking_bit_for_bit(
    reason: Reason, given_bases: list[float | None]
) -> None:
    found = candidates(*given_bases)
    signals = stages.neutral(found, "finerank", reason)
    assert signals.reason is reason
    assert [document.phi for document in signals.documents] == [1.0] * len(found)
    assert [document.score for document in signals.documents] == given_bases
    assert ranked([document.score for document in signals.documents]) == ranked(given_bases)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in STAGE_REASONS])
def test_an_answer_without_rewrites_stands_in_the_way_of_every_stage(reason: Reason) -> None:
    said = answer(reason=reason)
    assert stages.obstacle(said, candidates(1.0), "finerank", 1.0) is reason
    assert stages.recall(said, reason) == stages.Recall((), reason, reason)


def test_what_stands_in_the_way_of_a_ranking_stage() -> None:
    assert stages.obstacle(answer(0.9), candidates(1.0), "finerank", 1.0) is None
    assert stages.obstacle(answer(0.9), [], "finerank", 1.0) is Reason.NO_CANDIDATES
    assert stages.obstacle(answer(0.9), candidates(1.0), "finerank", 0.0) is Reason.DISABLED
    assert stages.obstacle(answer(0.0), candidates(1.0), "finerank", 1.0) is Reason.LOW_CONFIDENCE
    assert stages.obstacle(answer(BREAK_EVEN), candidates(1.0), "finerank", 1.0) is Reason.LOW_CONFIDENCE


def test_a_stage_that_was_not_launched_stays_neutral_and_the_others_do_not() -> None:
    said = replace(answer(0.9), launched=("finerank",))
    assert stages.obstacle(said, candidates(1.0), "rawrank", 1.0) is Reason.DISABLED
    assert stages.obstacle(said, candidates(1.0), "finerank", 1.0) is None
    assert stages.recall(said, [[1.0]]) == stages.Recall((), Reason.DISABLED, Reason.DISABLED)


def test_a_doubtful_rewrite_beside_a_sure_one_is_not_trusted() -> None:
    said = answer(0.9, 0.5, BREAK_EVEN, 0.1)
    assert [rewrite.text for rewrite in stages.trusted(said)] == ["rewrite 0", "rewrite 1"]
    assert stages.trusted(answer(math.nan)) == ()


def test_a_model_that_says_nothing_usable_is_an_error_and_neutral() -> None:
    signals = stages.ranking(
        answer(0.9, 0.8),
        candidates(2.0, None),
        "rawrank",
        [[math.nan, 0.0], [None, -1.0]],
        weight=1.0,
        max_factor=MAX_FACTOR,
    )
    assert signals == stages.neutral(candidates(2.0, None), "rawrank", Reason.RELEVANCE_ERROR)


def test_the_largest_score_stays_a_number() -> None:
    signals = stages.ranking(
        answer(1.0), candidates(sys.float_info.max, 1.0), "rawrank", [[0.9, 0.1]], weight=1.0, max_factor=3.0
    )
    assert signals.documents[0].score == sys.float_info.max


def test_recall_weighs_by_confidence_and_leaves_out_what_weighs_nothing() -> None:
    found = stages.recall(answer(1.0, 0.5, 0.0), [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    assert [(query.text, query.weight, query.embedding) for query in found.queries] == [
        ("rewrite 0", 1.5, (0.0, 1.0)),
        ("rewrite 1", 0.75, (1.0, 0.0)),
    ]
    assert (found.reason, found.embedding_reason) == (None, None)
    assert stages.recall(answer(0.0), [[1.0]]).reason is Reason.LOW_CONFIDENCE


def test_recall_goes_on_without_embeddings() -> None:
    late = stages.recall(answer(1.0), Reason.DEADLINE)
    assert [query.embedding for query in late.queries] == [None]
    assert (late.reason, late.embedding_reason) == (None, Reason.DEADLINE)
    broken = stages.recall(answer(1.0, 0.5), [[math.nan, 0.0], [0.6, 0.8]])
    assert [query.embedding for query in broken.queries] == [None, (0.6, 0.8)]
    assert broken.embedding_reason is None
    assert stages.recall(answer(1.0), [[math.inf]]).embedding_reason is Reason.RELEVANCE_ERROR
