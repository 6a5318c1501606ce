from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.signals.adapters.elasticsearch import to_elasticsearch
from app.signals.adapters.opensearch import to_opensearch

if TYPE_CHECKING:
    from app.signals.records import Signals


def standard(text: str) -> dict[str, Any]:
    return {"standard": {"query": {"multi_match": {"query": text}}}}


def test_recall_is_a_retriever_that_fuses_by_weighted_ranks(signals: Signals) -> None:
    assert to_elasticsearch(signals)["recall"] == {
        "retriever": {
            "rrf": {
                "retrievers": [
                    {"retriever": standard('in "blue"'), "weight": 1.0},
                    {"retriever": standard("blue shoes 1"), "weight": 1.5},
                ],
                "rank_constant": 60,
                "rank_window_size": 100,
            }
        }
    }


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_a_ranking_is_the_rescorer_of_opensearch(signals: Signals, stage: Any) -> None:
    assert to_elasticsearch(signals)[stage]["rescore"] == to_opensearch(signals)[stage]["rescore"]


def test_finerank_has_parameters_for_features(four: Signals) -> None:
    found = to_elasticsearch(four)
    assert found["finerank"]["ltr_params"] == {
        "query_text": 'in "blue"',
        "rewrite_text": "blue shoes 1",
        "rewrite_confidence": 1.0,
    }
    assert "ltr_params" not in found["rawrank"]


def test_neutral_is_the_original_query_alone(neutral: Signals) -> None:
    assert to_elasticsearch(neutral) == {
        "recall": {"retriever": standard('in "blue"')},
        "rawrank": {},
        "finerank": {
            "ltr_params": {"query_text": 'in "blue"', "rewrite_text": "", "rewrite_confidence": 0.0}
        },
    }
