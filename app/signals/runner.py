"""Runs the stages that a query names, under one deadline.

Recall comes first, then rawrank, then finerank, one after the other: the heads share the same cores, so side
by side both would be late. This way it is finerank that a short budget cuts off first, and recall last; a
stage after one that was late is not begun, though it might fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.contracts.fusion import FINERANK_WEIGHT, MAX_FACTOR, RAWRANK_WEIGHT
from app.contracts.reasons import Reason
from app.signals import stages
from app.signals.records import Staged
from app.tracing.trail import TRAIL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from app.relevance.base import Floats
    from app.rewrite.answer import Answer, Rewrite, Stage
    from app.rewrite.deadline import Deadline
    from app.signals.heads import Heads, Scores
    from app.signals.records import Candidate, Ranking, RankingStage, Recall
    from app.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Weights:
    """b of each ranking stage, and c, the largest factor; see app/settings.py."""

    rawrank: float = RAWRANK_WEIGHT
    finerank: float = FINERANK_WEIGHT
    max_factor: float = MAX_FACTOR


class StageRunner:
    """From an answer to the signals of its stages. It never raises for want of a relevance model."""

    def __init__(
        self, heads: Heads, *, weights: Weights, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._heads = heads
        self._weights = weights
        self._metrics = metrics
        self._clock = clock

    @property
    def image_dim(self) -> int:
        """Floats of an image embedding; 0 where none is read."""
        return self._heads.image_dim

    @property
    def relevance_digest(self) -> str | None:
        """Of the relevance model; None where there is none."""
        return self._heads.digest

    async def run(self, answer: Answer, candidates: Sequence[Candidate], deadline: Deadline) -> Staged:
        """The stages of `answer.query`, each neutral where it cannot be had in time or at all."""
        asked = answer.query.stages
        seconds: dict[str, float] = {}
        recall: Recall | None = None
        rawrank: Ranking | None = None
        finerank: Ranking | None = None
        embeddings: Floats | Reason | None = None
        if "recall" in asked:
            began = self._clock()
            found: Floats | Reason | None = stages.recall_obstacle(answer)
            if found is None:
                found = embeddings = await self._heads.embed(_texts(answer.rewrites), deadline)
            modelled = self._clock()
            vectors = found if isinstance(found, Reason) else found.tolist()
            recall = stages.recall(answer, vectors)
            seconds["recall"] = self._observe("recall", recall.reason, began, modelled)
        if "rawrank" in asked:
            rawrank, seconds["rawrank"] = await self._rank(
                "rawrank", answer, candidates, lambda: self._rawrank(answer, candidates, embeddings, deadline)
            )
        if "finerank" in asked:
            late = rawrank is not None and rawrank.reason is Reason.DEADLINE
            finerank, seconds["finerank"] = await self._rank(
                "finerank",
                answer,
                candidates,
                lambda: self._finerank(answer, candidates, deadline, late=late),
            )
        return Staged(recall, rawrank, finerank, seconds)

    async def _rawrank(
        self,
        answer: Answer,
        candidates: Sequence[Candidate],
        embeddings: Floats | Reason | None,
        deadline: Deadline,
    ) -> Scores | Reason:
        """Scores by the embeddings that recall had, or did not get, or by new ones where it was not asked."""
        texts = _texts(stages.trusted(answer))
        if embeddings is None:
            embeddings = await self._heads.embed(texts, deadline)
        if isinstance(embeddings, Reason):
            return embeddings
        documents = [candidate.content for candidate in candidates]
        return await self._heads.similarities(embeddings[: len(texts)], documents, deadline)

    async def _finerank(
        self, answer: Answer, candidates: Sequence[Candidate], deadline: Deadline, *, late: bool
    ) -> Scores | Reason:
        """Scores by reading together; none where rawrank was `late` already, whatever time is left."""
        if late:
            return Reason.DEADLINE
        documents = [candidate.content for candidate in candidates]
        return await self._heads.scores(_texts(stages.trusted(answer)), documents, deadline)

    async def _rank(
        self,
        stage: RankingStage,
        answer: Answer,
        candidates: Sequence[Candidate],
        ask: Callable[[], Awaitable[Scores | Reason]],
    ) -> tuple[Ranking, float]:
        """The signals of a ranking stage, and its seconds."""
        began = self._clock()
        weight = self._weights.rawrank if stage == "rawrank" else self._weights.finerank
        scores = stages.obstacle(answer, candidates, stage, weight) or await ask()
        modelled = self._clock()
        if isinstance(scores, Reason):
            ranking = stages.neutral(candidates, stage, scores)
        else:
            ranking = stages.ranking(
                answer, candidates, stage, scores, weight=weight, max_factor=self._weights.max_factor
            )
        return ranking, self._observe(stage, ranking.reason, began, modelled)

    def _observe(self, stage: Stage, reason: Reason | None, began: float, modelled: float) -> float:
        """Count a stage that ends now; the seconds it took."""
        ended = self._clock()
        self._metrics.stages.labels(stage, "neutral" if reason else "signal", reason or "none").inc()
        self._metrics.stage_seconds.labels(stage, "model").observe(modelled - began)
        self._metrics.stage_seconds.labels(stage, "fusion").observe(ended - modelled)
        trail = TRAIL.get()
        if trail is not None:
            trail.staged(stage, reason, began, ended)
        return ended - began


def _texts(rewrites: Sequence[Rewrite]) -> list[str]:
    return [rewrite.text for rewrite in rewrites]
