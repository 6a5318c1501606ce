"""From the rewrites of an answer and the numbers of the relevance model to the signals of a stage. Pure.

The algebra is that of app/contracts/fusion.py. At a ranking stage a rewrite weighs `rank_weight`, b
being the weight of the stage; at recall `recall_weight`. What weighs nothing or is missing is neutral, and a
stage that is neutral altogether says why.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from app.contracts.fusion import factors, geometric_mean, rank_weight, recall_weight
from app.contracts.reasons import Reason
from app.signals.records import DocumentSignal, Ranking, RankingStage, Recall, RecallQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.rewrite.answer import Answer, Rewrite
    from app.signals.records import Candidate


def recall(answer: Answer, embeddings: Sequence[Sequence[float]] | Reason) -> Recall:
    """The queries to issue in addition.

    Args:
        answer: the rewrites.
        embeddings: one per rewrite, or why there are none. One with a number that is not finite is left out.
    """
    if reason := recall_obstacle(answer):
        return Recall((), reason, reason)
    vectors = [None] * len(answer.rewrites) if isinstance(embeddings, Reason) else map(_finite, embeddings)
    queries = tuple(
        RecallQuery(rewrite.text, weight, vector)
        for rewrite, vector in zip(answer.rewrites, vectors, strict=True)
        if (weight := recall_weight(rewrite.confidence)) > 0
    )
    if not queries:
        return Recall((), Reason.LOW_CONFIDENCE, Reason.LOW_CONFIDENCE)
    if any(query.embedding is not None for query in queries):
        return Recall(queries, None, None)
    return Recall(queries, None, embeddings if isinstance(embeddings, Reason) else Reason.RELEVANCE_ERROR)


def recall_obstacle(answer: Answer) -> Reason | None:
    """Why recall is neutral whatever the relevance model would say, or None."""
    return answer.reason or (None if "recall" in answer.launched else Reason.DISABLED)


def obstacle(
    answer: Answer, candidates: Sequence[Candidate], stage: RankingStage, weight: float
) -> Reason | None:
    """Why a ranking stage of this weight is neutral whatever the relevance model would say, or None."""
    if answer.reason is not None:
        return answer.reason
    if not candidates:
        return Reason.NO_CANDIDATES
    if weight == 0 or stage not in answer.launched:
        return Reason.DISABLED
    return None if trusted(answer) else Reason.LOW_CONFIDENCE


def trusted(answer: Answer) -> tuple[Rewrite, ...]:
    """The rewrites that weigh anything at a ranking stage: the first ones, for the best come first."""
    return tuple(rewrite for rewrite in answer.rewrites if rank_weight(rewrite.confidence, 1.0) > 0)


def ranking(
    answer: Answer,
    candidates: Sequence[Candidate],
    stage: RankingStage,
    scores: Sequence[Sequence[float | None]],
    *,
    weight: float,
    max_factor: float,
) -> Ranking:
    """The signals of a stage that nothing stands in the way of.

    Args:
        answer: the rewrites, at least one of them trusted.
        candidates: in the caller's order, which the signals keep.
        stage: whose base scores to take.
        scores: per trusted rewrite, s(y, d) of each candidate, in (0, 1]; one that is not usable is neutral.
        weight: b of the stage.
        max_factor: c, the largest factor.
    """
    if all(geometric_mean(row) is None for row in scores):
        return neutral(candidates, stage, Reason.RELEVANCE_ERROR)
    weights = [rank_weight(rewrite.confidence, weight) for rewrite in trusted(answer)]
    phis = factors(scores, weights, max_factor)
    signals = zip(candidates, scores[0], phis, strict=True)
    return Ranking(tuple(_signal(candidate, stage, s, phi) for candidate, s, phi in signals), None)


def neutral(candidates: Sequence[Candidate], stage: RankingStage, reason: Reason) -> Ranking:
    """The original ranking, and why."""
    return Ranking(tuple(_signal(candidate, stage, None, 1.0) for candidate in candidates), reason)


def _signal(candidate: Candidate, stage: RankingStage, score: float | None, phi: float) -> DocumentSignal:
    base = candidate.rawrank if stage == "rawrank" else candidate.finerank
    return DocumentSignal(
        id=candidate.id,
        base_score=base,
        rewrite=None if geometric_mean((score,)) is None else score,
        phi=phi,
        # JSON has no infinity, and the largest number keeps the place that infinity would have.
        score=base if base is None or base <= 0 else min(base * phi, sys.float_info.max),
    )


def _finite(vector: Sequence[float]) -> tuple[float, ...] | None:
    numbers = tuple(map(float, vector))
    return numbers if numbers and all(map(math.isfinite, numbers)) else None
