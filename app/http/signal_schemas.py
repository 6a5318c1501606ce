"""The wire of `/v1/signals`: what a client may send, and what it gets.

JSON has no NaN and no infinity: a body that spells one, or a number too large to be finite, is refused with
the name of its field. A score that is missing is absent or null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from app.contracts.reasons import Reason
from app.http.schemas import AnswerHead, Identifier, RewriteRequest, wire_head
from app.relevance.base import Content
from app.rewrite.answer import Stage
from app.signals.adapters.elasticsearch import to_elasticsearch
from app.signals.adapters.opensearch import to_opensearch
from app.signals.adapters.solr import to_solr
from app.signals.adapters.vespa import to_vespa
from app.signals.records import Candidate, Format, Signals

if TYPE_CHECKING:
    from app.signals.records import Ranking, Recall

MAX_CANDIDATES = 1000
MAX_TEXT_CHARS = 4096
MAX_IMAGE_DIM = 1024
_REQUEST = "In an engine's format: what goes into the engine's request of this stage."
_ADAPTERS: dict[Format, Callable[[Signals], dict[Stage, dict[str, Any]]]] = {
    "vespa": to_vespa,
    "opensearch": to_opensearch,
    "elasticsearch": to_elasticsearch,
    "solr": to_solr,
}


class WireBaseScores(BaseModel):
    """The caller's own score of a document for the original query, per stage; null where it has none."""

    model_config = RewriteRequest.model_config

    recall: FiniteFloat | None = Field(default=None, description="Taken for no stage: recall adds queries.")
    rawrank: FiniteFloat | None = None
    finerank: FiniteFloat | None = None


# One float that is none is told, not a thousand: their messages would take longer than the search.
_IMAGE = Field(min_length=1, max_length=MAX_IMAGE_DIM, fail_fast=True)


class WireCandidate(BaseModel):
    """A document that the original query found."""

    model_config = RewriteRequest.model_config

    id: Identifier = Field(description="The document's id, once in a request.")
    text: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] = Field(
        description="What the document says. Unlike a query it may have any character."
    )
    image: Annotated[list[FiniteFloat], _IMAGE] | None = Field(
        default=None,
        description=(
            "Embedding of its image, of the size that the relevance model reads; a model that reads none "
            "ignores it."
        ),
    )
    base_score: WireBaseScores | None = None

    def to_candidate(self) -> Candidate:
        """The candidate that the stages work on."""
        given = self.base_score or WireBaseScores()
        return Candidate(
            id=self.id,
            content=Content(self.text, None if self.image is None else tuple(self.image)),
            rawrank=given.rawrank,
            finerank=given.finerank,
        )


def _distinct(candidates: list[WireCandidate]) -> list[WireCandidate]:
    if len({candidate.id for candidate in candidates}) != len(candidates):
        raise ValueError("each id may be used once")
    return candidates


class SignalsRequest(RewriteRequest):
    """A query, and the documents that the original found for it."""

    candidates: Annotated[
        list[WireCandidate], Field(max_length=MAX_CANDIDATES), AfterValidator(_distinct)
    ] = Field(
        default_factory=list,
        description="What rawrank and finerank are to rank; recall needs none. Ids are distinct.",
        json_schema_extra={"default": []},
    )
    format: Format = Field(
        default="corewrite",
        description="The shape of the signals: corewrite's own, or what a search engine takes.",
    )


class WireRecallQuery(BaseModel):
    """One query to issue beside the original."""

    model_config = ConfigDict(extra="forbid")

    text: str
    weight: float = Field(gt=0, description="Weight of its ranking, where the original's is 1.")
    embedding: list[float] | None = Field(description="Of the relevance model, of length 1.")


class WireRecall(BaseModel):
    """Recall: the rewrites as further queries. The original is not among them: it comes first anyway."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(description="Why there are no queries; null where there are.")
    embedding_reason: Reason | None = Field(default=None, description="Why none has an embedding.")
    queries: list[WireRecallQuery] | None = Field(default=None, description="In corewrite's format.")
    request: dict[str, Any] | None = Field(default=None, description=_REQUEST)


class WireDocument(BaseModel):
    """What one ranking stage may make of one candidate."""

    model_config = ConfigDict(extra="forbid")

    id: str
    base_score: float | None = Field(description="The caller's own, untouched.")
    rewrite: float | None = Field(description="Relevance of the document to the best rewrite, in (0, 1].")
    phi: float = Field(gt=0, description="The factor of the rewrites; 1 is neutral.")
    score: float | None = Field(description="base_score · phi; the base score itself unless it is positive.")


class WireRanking(BaseModel):
    """A ranking stage: one entry per candidate, in the order of the candidates."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(description="Why every phi is 1; null where the rewrites count.")
    documents: list[WireDocument] | None = Field(default=None, description="In corewrite's format.")
    request: dict[str, Any] | None = Field(default=None, description=_REQUEST)


class WireStages(BaseModel):
    """The stages that were asked for."""

    model_config = ConfigDict(extra="forbid")

    recall: WireRecall | None = None
    rawrank: WireRanking | None = None
    finerank: WireRanking | None = None


class WireSignalTimings(BaseModel):
    """Milliseconds of the rewrite and of each stage that was asked for."""

    model_config = ConfigDict(extra="forbid")

    rewrite: float = Field(ge=0)
    recall: float | None = Field(default=None, ge=0)
    rawrank: float | None = Field(default=None, ge=0)
    finerank: float | None = Field(default=None, ge=0)
    total: float = Field(ge=0)


class SignalsAnswer(AnswerHead):
    """The original first, then what each stage may put beside it."""

    relevance_digest: str | None = Field(
        description="SHA-256 of the relevance model, all that its numbers follow from; null where none."
    )
    remembered: bool = Field(
        description="Whether an earlier call of this query_id had the rewrites made, which it shares."
    )
    format: Format
    stages: WireStages
    timings_ms: WireSignalTimings


def wire_signals(signals: Signals, shape: Format) -> dict[str, Any]:
    """The JSON object of an answer; `SignalsAnswer` documents it."""
    if shape == "corewrite":
        stages = _native(signals)
    else:
        requests = _ADAPTERS[shape](signals)
        stages = {
            stage: {"reason": reason, "request": requests[stage]} for stage, reason in signals.reasons.items()
        }
    return {
        **wire_head(signals.answer),
        "relevance_digest": signals.relevance_digest,
        "remembered": signals.remembered,
        "format": shape,
        "stages": stages,
        "timings_ms": {phase: round(seconds * 1000, 3) for phase, seconds in signals.seconds.items()},
    }


def _native(signals: Signals) -> dict[Stage, dict[str, Any]]:
    stages: dict[Stage, dict[str, Any]] = {}
    if signals.recall is not None:
        stages["recall"] = _recall(signals.recall)
    if signals.rawrank is not None:
        stages["rawrank"] = _ranking(signals.rawrank)
    if signals.finerank is not None:
        stages["finerank"] = _ranking(signals.finerank)
    return stages


def _recall(recall: Recall) -> dict[str, Any]:
    return {
        "reason": recall.reason,
        "embedding_reason": recall.embedding_reason,
        "queries": [
            {"text": query.text, "weight": query.weight, "embedding": query.embedding}
            for query in recall.queries
        ],
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "reason": ranking.reason,
        "documents": [
            {
                "id": document.id,
                "base_score": document.base_score,
                "rewrite": document.rewrite,
                "phi": document.phi,
                "score": document.score,
            }
            for document in ranking.documents
        ],
    }
