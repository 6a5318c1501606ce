from __future__ import annotations

from pathlib import Path

from training.datasets.jobs import read_jobs
from training.teachers import Teachers
from training.tune import MAX_LOSS, RETRIEVERS, TeacherRewriter, best


def row(name: float, seen: float, unseen: float, canonical: float = 0.0) -> dict[str, float]:
    sides = {"seen": seen, "unseen": unseen, "canonical": canonical}
    return {"ceiling": name} | {f"{side} {r}": value for side, value in sides.items() for r in RETRIEVERS}


def test_the_best_setting_gains_most_among_those_that_hurt_little() -> None:
    safe, greedy, plural = row(1, 0.02, -MAX_LOSS["unseen"]), row(2, 0.9, -0.1), row(3, 0.9, 0, -0.1)
    assert best([row(0, 0.01, 0.0), safe, greedy, plural])["ceiling"] == 1
    assert best([greedy])["ceiling"] == 2


def test_teachers_rewrite_with_their_probabilities_and_never_copy(mini_data: Path) -> None:
    rewriter = TeacherRewriter(Teachers(read_jobs(mini_data / "jobs")))
    first, copied = rewriter.rewrite(["Lead Bakers", "bakers"])
    assert first[0].text == "Bakers"
    assert first[0].confidence > first[1].confidence > 0
    assert len(first) == 4
    assert "Bakers" not in {rewrite.text for rewrite in copied}
