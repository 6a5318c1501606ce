"""Signals for OpenSearch: parts of a search request.

Recall is a hybrid query, which takes five clauses at most: the original and four rewrites. A search pipeline
for this request alone fuses them by weighted reciprocal ranks, whose weights add up to 1. The ranking stages
are rescorers.

Source: https://docs.opensearch.org/latest/query-dsl/compound/hybrid/ ,
https://docs.opensearch.org/latest/search-plugins/search-pipelines/score-ranker-processor/ and
https://docs.opensearch.org/latest/query-dsl/rescore/
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from app.contracts.fusion import RRF_K
from app.signals.adapters.factors import rescorer

if TYPE_CHECKING:
    from app.rewrite.answer import Stage
    from app.signals.records import Ranking, Recall, Signals

MAX_CLAUSES = 5


def to_opensearch(signals: Signals) -> dict[Stage, dict[str, Any]]:
    """Per stage asked for, what to put into OpenSearch's search request; nothing where it is neutral."""
    requests: dict[Stage, dict[str, Any]] = {}
    if signals.recall is not None:
        requests["recall"] = _recall(signals.answer.query.text, signals.recall)
    if signals.rawrank is not None:
        requests["rawrank"] = _ranking(signals.rawrank)
    if signals.finerank is not None:
        requests["finerank"] = _ranking(signals.finerank)
    return requests


def _recall(original: str, recall: Recall) -> dict[str, Any]:
    rewrites = recall.queries[: MAX_CLAUSES - 1]
    if not rewrites:
        return {"query": _match(original)}
    weights = [1.0, *(query.weight for query in rewrites)]
    total = math.fsum(weights)
    combination = {
        "technique": "rrf",
        "rank_constant": RRF_K,
        "parameters": {"weights": [weight / total for weight in weights]},
    }
    return {
        "query": {"hybrid": {"queries": [_match(original), *(_match(query.text) for query in rewrites)]}},
        "search_pipeline": {
            "phase_results_processors": [{"score-ranker-processor": {"combination": combination}}]
        },
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    found = rescorer(ranking)
    return {} if found is None else {"rescore": found}


def _match(text: str) -> dict[str, Any]:
    """Without fields, the index's own default fields are searched."""
    return {"multi_match": {"query": text}}
