from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from app.signals.adapters.vespa import to_vespa

if TYPE_CHECKING:
    from app.signals.records import Signals


def test_recall_matches_the_original_or_a_rewrite_and_weighs_by_query_tensors(signals: Signals) -> None:
    assert to_vespa(signals)["recall"] == {
        "yql": "select * from sources * where userInput(@original) or userInput(@rewrite_1)",
        "original": 'in "blue"',
        "rewrite_1": "blue shoes 1",
        "input": {"query(rewrite_1_weight)": 1.5, "query(rewrite_1_embedding)": (0.6, 0.8)},
    }


def test_a_rewrite_without_an_embedding_has_none(four: Signals) -> None:
    recall = to_vespa(four)["recall"]
    assert list(recall["input"]) == [f"query(rewrite_{rank}_weight)" for rank in (1, 2, 3, 4)]
    assert recall["yql"].count("userInput") == 5


@pytest.mark.parametrize("stage", ["rawrank", "finerank"])
def test_a_ranking_is_a_mapped_tensor_of_logarithms_without_cells_for_what_is_neutral(
    signals: Signals, stage: Any
) -> None:
    cells = to_vespa(signals)[stage]["input"][f"query({stage}_log_phi)"]
    assert cells == pytest.approx({'a"1\\': -math.log(2), "b": math.log(2)})


def test_neutral_is_the_original_query_and_no_input(neutral: Signals) -> None:
    assert to_vespa(neutral) == {
        "recall": {
            "yql": "select * from sources * where userInput(@original)",
            "original": 'in "blue"',
            "input": {},
        },
        "rawrank": {"input": {}},
        "finerank": {"input": {}},
    }


def test_every_number_is_json(four: Signals) -> None:
    json.dumps(to_vespa(four), allow_nan=False)
