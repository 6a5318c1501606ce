"""Signals for Elasticsearch: parts of a search request, and parameters for features of Learning To Rank.

Recall is a retriever that fuses the original and the rewrites by weighted reciprocal ranks (weights since
9.2). The ranking stages are rescorers, which go after the ranker's own. Finerank also has parameters for the
query templates of an LTR model; without a rewrite its text is empty, which no template matches.

Source: https://www.elastic.co/docs/reference/elasticsearch/rest-apis/retrievers/rrf-retriever ,
https://www.elastic.co/docs/reference/elasticsearch/rest-apis/rescore-search-results and
https://www.elastic.co/docs/solutions/search/ranking/learning-to-rank-search-usage
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.contracts.fusion import RRF_K
from app.signals.adapters.factors import rescorer

if TYPE_CHECKING:
    from app.rewrite.answer import Answer, Stage
    from app.signals.records import Ranking, Recall, Signals

RANK_WINDOW_SIZE = 100
"""Documents that each retriever gives; Elasticsearch's own 10 must not be below the size of the page."""


def to_elasticsearch(signals: Signals) -> dict[Stage, dict[str, Any]]:
    """Per stage asked for, what to put into Elasticsearch's search request; nothing where it is neutral."""
    requests: dict[Stage, dict[str, Any]] = {}
    if signals.recall is not None:
        requests["recall"] = {"retriever": _recall(signals.answer.query.text, signals.recall)}
    if signals.rawrank is not None:
        requests["rawrank"] = _ranking(signals.rawrank)
    if signals.finerank is not None:
        requests["finerank"] = {
            **_ranking(signals.finerank),
            "ltr_params": _ltr_params(signals.answer, signals.finerank),
        }
    return requests


def _recall(original: str, recall: Recall) -> dict[str, Any]:
    if not recall.queries:
        return _standard(original)  # a fusion needs two
    rewrites = [{"retriever": _standard(query.text), "weight": query.weight} for query in recall.queries]
    return {
        "rrf": {
            "retrievers": [{"retriever": _standard(original), "weight": 1.0}, *rewrites],
            "rank_constant": RRF_K,
            "rank_window_size": RANK_WINDOW_SIZE,
        }
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    found = rescorer(ranking)
    return {} if found is None else {"rescore": found}


def _ltr_params(answer: Answer, ranking: Ranking) -> dict[str, Any]:
    best = answer.rewrites[0] if answer.rewrites and ranking.reason is None else None
    return {
        "query_text": answer.query.text,
        "rewrite_text": best.text if best else "",
        "rewrite_confidence": best.confidence if best else 0.0,
    }


def _standard(text: str) -> dict[str, Any]:
    """Without fields, the index's own default fields are searched."""
    return {"standard": {"query": {"multi_match": {"query": text}}}}
