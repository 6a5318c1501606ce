from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.signals.adapters.opensearch import to_opensearch

if TYPE_CHECKING:
    from app.signals.records import Signals


def test_recall_is_a_hybrid_query_fused_by_weighted_ranks(signals: Signals) -> None:
    assert to_opensearch(signals)["recall"] == {
        "query": {
            "hybrid": {
                "queries": [
                    {"multi_match": {"query": 'in "blue"'}},
                    {"multi_match": {"query": "blue shoes 1"}},
                ]
            }
        },
        "search_pipeline": {
            "phase_results_processors": [
                {
                    "score-ranker-processor": {
                        "combination": {
                            "technique": "rrf",
                            "rank_constant": 60,
                            "parameters": {"weights": [0.4, 0.6]},
                        }
                    }
                }
            ]
        },
    }


def test_a_hybrid_query_has_five_clauses_at_most_and_a_weight_for_each(four: Signals) -> None:
    recall = to_opensearch(four)["recall"]
    combination = recall["search_pipeline"]["phase_results_processors"][0]["score-ranker-processor"][
        "combination"
    ]
    weights = combination["parameters"]["weights"]
    assert len(recall["query"]["hybrid"]["queries"]) == len(weights) == 5
    assert sum(weights) == pytest.approx(1.0)
    assert all(0 <= weight <= 1 for weight in weights)


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_a_ranking_multiplies_the_scores_of_those_that_have_a_factor(signals: Signals, stage: Any) -> None:
    rescore = to_opensearch(signals)[stage]["rescore"]
    assert rescore["window_size"] == 3
    assert rescore["query"]["score_mode"] == "multiply"
    score = rescore["query"]["rescore_query"]["function_score"]
    assert [function["filter"]["ids"]["values"] for function in score["functions"]] == [['a"1\\'], ["b"]]
    assert [function["weight"] for function in score["functions"]] == pytest.approx([0.5, 2.0])
    assert (score["query"], score["score_mode"], score["boost_mode"]) == (
        {"match_all": {}},
        "first",
        "multiply",
    )


def test_neutral_is_the_original_query_alone(neutral: Signals) -> None:
    assert to_opensearch(neutral) == {
        "recall": {"query": {"multi_match": {"query": 'in "blue"'}}},
        "rawrank": {},
        "finerank": {},
    }
