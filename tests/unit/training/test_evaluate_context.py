from __future__ import annotations

from pathlib import Path

import pytest

from training.evaluate_context import Asked, evaluate_conversations, rouge1_recall


def test_rouge1_recall_counts_repetitions_and_takes_the_best_reference() -> None:
    assert rouge1_recall("the cat", ["the cat sat on the mat"]) == pytest.approx(2 / 6)
    assert rouge1_recall("the the cat", ["the cat sat on the mat"]) == pytest.approx(3 / 6)
    assert rouge1_recall("Cat!", ["dog", "cat"]) == 1.0
    assert rouge1_recall("cat", [""]) == 0.0


def test_conversations_compare_the_rewrite_with_copying_and_appending(mini_data: Path) -> None:
    def perfect(asked: Asked) -> list[str]:
        return [
            f"is {context.previous_queries[-1].removeprefix('What is ').removesuffix('?')} treatable"
            for _, context in asked
        ]

    rows = {
        row["rewrite"]: row for row in evaluate_conversations(mini_data / "context" / "dev.jsonl", perfect)
    }
    assert rows["rewrite"]["exact"] == 1.0
    assert rows["rewrite"]["rouge1_recall"] == 1.0
    assert rows["none"]["exact"] == 0.0
    assert rows["none"]["rouge1_recall"] == 0.5
    assert rows["append"]["rouge1_recall"] == 1.0
    assert rows["rewrite"]["queries"] == 3
