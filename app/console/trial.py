"""A search that somebody tries: from a form's fields to a request, from its signals to two rankings.

The request is the one of `/v1/signals` and is checked as that is; the factors are those that it would give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from app.errors import BadRequestError
from app.http.body import what_is_wrong
from app.http.signal_schemas import SignalsRequest
from app.signals.records import Candidate, DocumentSignal, RankingStage

STAGES: tuple[RankingStage, ...] = ("finerank", "rawrank")
ARMS = ("stable", "canary", "holdout")
_SCORE = re.compile(
    r"\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(?:\t|\|)\s*(.*)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Row:
    """A document's place in a ranking.

    Args:
        place: from 1.
        text: what it says.
        base: B, for the original query; None: there is none.
        score: what it is ranked by.
        phi: the factor of the rewrites.
        rewrite: its relevance to the best rewrite; None: not known.
        moved: places up from the original ranking; negative: down.
    """

    place: int
    text: str
    base: float | None
    score: float | None
    phi: float
    rewrite: float | None
    moved: int = 0


def fields_of(given: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of the page, each of them there."""
    start = {"query": "", "title": "", "text": "", "previous": "", "candidates": ""}
    start |= {"num_rewrites": "1", "stage": STAGES[0], "arm": ARMS[0]}
    return {name: given.get(name, value) for name, value in start.items()}


def request_of(fields: Mapping[str, str]) -> SignalsRequest:
    """Return the request of what was typed.

    Raises:
        BadRequestError: the message names the field.
    """
    stage = fields["stage"]
    context: dict[str, Any] = {}
    if fields["title"].strip() or fields["text"].strip():
        context["last_item"] = {"title": fields["title"], "text": fields["text"]}
    if previous := [line for line in fields["previous"].split("\n") if line.strip()]:
        context["previous_queries"] = previous
    if stage not in STAGES:
        raise BadRequestError(f"stage: must be one of {', '.join(STAGES)}")
    if not fields["num_rewrites"].isdecimal():
        raise BadRequestError("num_rewrites: must be a whole number")
    asked: dict[str, Any] = {
        "query": fields["query"],
        "context": context or None,
        "num_rewrites": int(fields["num_rewrites"][:4]),
        "stages": ["recall", stage],
        "candidates": _candidates(fields["candidates"], stage),
    }
    try:
        return SignalsRequest.model_validate(asked)
    except ValidationError as error:
        raise BadRequestError(what_is_wrong(error)) from None


def _candidates(lines: str, stage: str) -> list[dict[str, Any]]:
    """One for each line: its text, or its score, a tab or a bar, and its text."""
    found: list[dict[str, Any]] = []
    for line in lines.split("\n"):
        if not line.strip():
            continue
        scored = _SCORE.fullmatch(line)
        one: dict[str, Any] = {"id": str(len(found) + 1), "text": (scored[2] if scored else line).strip()}
        if scored:
            one["base_score"] = {stage: float(scored[1])}
        found.append(one)
    return found


def with_base(
    candidates: Sequence[Candidate], stage: RankingStage, scores: Sequence[float | None]
) -> list[Candidate]:
    """Return candidates that have these base scores in a stage."""
    pairs = zip(candidates, scores, strict=True)
    if stage == "rawrank":
        return [replace(candidate, rawrank=score) for candidate, score in pairs]
    return [replace(candidate, finerank=score) for candidate, score in pairs]


def rankings(documents: Sequence[DocumentSignal], texts: Mapping[str, str]) -> tuple[list[Row], list[Row]]:
    """Return the original ranking, by B, and the one by F = B·φ; ties stay as they were.

    Args:
        documents: the signals of a stage, in the order of the candidates.
        texts: of documents, by id.
    """
    before = sorted(documents, key=lambda one: _descending(one.base_score))
    after = sorted(before, key=lambda one: _descending(one.score))
    places = {one.id: place for place, one in enumerate(before, 1)}

    def row(place: int, one: DocumentSignal, score: float | None) -> Row:
        moved = places[one.id] - place
        return Row(place, texts[one.id], one.base_score, score, one.phi, one.rewrite, moved)

    return (
        [row(place, one, one.base_score) for place, one in enumerate(before, 1)],
        [row(place, one, one.score) for place, one in enumerate(after, 1)],
    )


def reach(phi: float, max_factor: float) -> float:
    """Return how far a factor is from neutral, of what it may be: -1 to 1, by its logarithm."""
    if max_factor <= 1:
        return 0.0
    return max(-1.0, min(1.0, math.log(phi) / math.log(max_factor)))


def _descending(score: float | None) -> float:
    return math.inf if score is None else -score
