"""What the stages of a search take from a rewrite. Frozen records, no behaviour to speak of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.contracts.reasons import Reason
    from app.relevance.base import Content
    from app.rewrite.answer import Answer, Stage

RankingStage = Literal["rawrank", "finerank"]
Format = Literal["corewrite", "vespa", "opensearch", "elasticsearch", "solr"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that the original query found, with the caller's own score at each ranking stage."""

    id: str
    content: Content
    rawrank: float | None = None
    finerank: float | None = None


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """One query to issue beside the original, whose weight is 1. Without a model it has no embedding."""

    text: str
    weight: float
    embedding: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Recall:
    """Queries to issue in addition, best first. `reason` says why there are none.

    `embedding_reason` says why no query has an embedding; it is None where one has.
    """

    queries: tuple[RecallQuery, ...]
    reason: Reason | None
    embedding_reason: Reason | None


@dataclass(frozen=True, slots=True)
class DocumentSignal:
    """What one stage may make of one candidate.

    `base_score` is the caller's, untouched; `rewrite` is s(y, d) of the best rewrite, None where it is not
    usable; `score` is base_score·phi where the base score is positive, else the base score.
    """

    id: str
    base_score: float | None
    rewrite: float | None
    phi: float
    score: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """One signal per candidate, in the order of the candidates. With a `reason` every phi is 1."""

    documents: tuple[DocumentSignal, ...]
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Staged:
    """What came of the stages; one that was not asked for is None. `seconds` are those of each asked for."""

    recall: Recall | None
    rawrank: Ranking | None
    finerank: Ranking | None
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals of one query; a stage that was not asked for is None.

    `remembered` says that an earlier call of the same query_id had the answer made, which all its stages
    share. `relevance_digest` names the relevance model, None where there is none. `seconds` are those of each
    stage asked for, of `rewrite` and of the `total`.
    """

    answer: Answer
    remembered: bool
    recall: Recall | None
    rawrank: Ranking | None
    finerank: Ranking | None
    relevance_digest: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[Stage, Reason | None]:
        """Why each stage that was asked for is neutral, None where it is not."""
        stages = {"recall": self.recall, "rawrank": self.rawrank, "finerank": self.finerank}
        return {stage: stages[stage].reason for stage in self.answer.query.stages}  # type: ignore[union-attr]
