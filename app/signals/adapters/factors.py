"""The factors of a ranking stage as a rescorer, which OpenSearch and Elasticsearch write alike.

The rescore query gives each document that has one its factor and every other one 1, which is what a
function_score query gives where none of its functions matches; `multiply` is the F = B · φ of the fusion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.signals.records import Ranking


def rescorer(ranking: Ranking) -> dict[str, Any] | None:
    """One rescorer over as many documents of each shard as there are candidates; None where all are 1."""
    functions = [
        {"filter": {"ids": {"values": [document.id]}}, "weight": document.phi}
        for document in ranking.documents
        if document.phi != 1.0
    ]
    if not functions:
        return None
    return {
        "window_size": len(ranking.documents),
        "query": {
            "rescore_query": {
                "function_score": {
                    "query": {"match_all": {}},
                    "functions": functions,
                    "score_mode": "first",
                    "boost_mode": "multiply",
                }
            },
            "score_mode": "multiply",
        },
    }
