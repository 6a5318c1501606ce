from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.signals.adapters.solr import to_solr

if TYPE_CHECKING:
    from app.signals.records import Signals


def test_recall_adds_the_scores_of_the_rewrites_times_their_weights(signals: Signals) -> None:
    assert to_solr(signals)["recall"] == {
        "defType": "lucene",
        "q": "{!bool should=$original_query should=$rewrite_1_boosted}",
        "original_query": "{!edismax v=$original}",
        "rewrite_1_boosted": "{!boost b=1.500000000 v=$rewrite_1_query}",
        "original": 'in "blue"',
        "rewrite_1_query": "{!edismax v=$rewrite_1}",
        "rewrite_1": "blue shoes 1",
    }


def test_every_parameter_that_is_referred_to_is_there(four: Signals) -> None:
    for stage in to_solr(four).values():
        referred = [
            word.split("$")[1].strip("} ")
            for value in stage.values()
            for word in value.split()
            if "$" in word
        ]
        assert referred
        assert set(referred) <= set(stage)


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_a_ranking_multiplies_by_constants_for_quoted_ids(signals: Signals, stage: Any) -> None:
    assert to_solr(signals)[stage] == {
        "rq": (
            f"{{!rerank reRankQuery=${stage}_factors reRankDocs=3 reRankWeight=1 reRankOperator=multiply}}"
        ),
        f"{stage}_factors": r'{!lucene q.op=OR}id:"a\"1\\"^=0.500000000 id:"b"^=2.000000000',
    }


def test_neutral_is_the_original_query_alone(neutral: Signals) -> None:
    assert to_solr(neutral) == {
        "recall": {"defType": "edismax", "q": 'in "blue"'},
        "rawrank": {},
        "finerank": {},
    }
