"""What the worst rewriter can break: the worst of what was drawn, for each c."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes import FakeRelevance

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from training.blast_radius import FACTORS, Shown, measure, show, worst
from training.datasets.beir import Document, Query, Task
from training.evaluate import Rewrite
from training.search import Knobs, Stack

DOCUMENTS = (
    *(Document(f"n{n}", "", f"night nurse {n}") for n in range(12)),
    *(Document(f"w{n}", "", f"night welder {n}") for n in range(12)),
)
TASK = Task(DOCUMENTS, (Query("q1", "night nurse", {}),), {"q1": {"n1": 1, "n2": 1}})
SHOWN = {
    "q1": Shown(
        honest=(Rewrite("nurse 1", 0.9),),
        samples=(Rewrite("nurse 1", 0.9), Rewrite("welder", 0.0), Rewrite("nurse 2", 0.2)),
    )
}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return asyncio.run(Stack.over(DOCUMENTS, FakeRelevance(), tmp_path))


def ndcg(stack: Stack, rewrites: tuple[Rewrite, ...], knobs: Knobs) -> float:
    shown = {"q1": Shown(honest=(), samples=rewrites)}
    return asyncio.run(worst(stack, TASK, shown, knobs, lying=False))[0]


def test_the_worst_is_the_least_over_the_samples(stack: Stack) -> None:
    knobs = Knobs(max_factor=10.0)
    each = [ndcg(stack, (sample,), knobs) for sample in SHOWN["q1"].samples]
    assert len(set(each)) > 1
    assert asyncio.run(worst(stack, TASK, SHOWN, knobs, lying=False)) == [min(each)]


def test_a_liar_is_as_sure_of_everything_as_the_best_rewrite_is(stack: Stack) -> None:
    assert {lie.confidence for lie in SHOWN["q1"].lies} == {0.9}
    assert Shown(honest=(), samples=(Rewrite("a", 0.0),)).lies == (Rewrite("a", 0.5),)
    knobs = Knobs(max_factor=10.0)
    lying, honest = (asyncio.run(worst(stack, TASK, SHOWN, knobs, lying=lying)) for lying in (True, False))
    assert lying < honest


def test_without_samples_the_worst_is_the_original(stack: Stack) -> None:
    assert ndcg(stack, (), Knobs()) == ndcg(stack, (Rewrite("welder", 0.0),), Knobs())


def test_a_row_for_each_c_with_what_honest_rewrites_gain(stack: Stack) -> None:
    rows = asyncio.run(measure(stack, TASK, SHOWN, Knobs()))
    assert [row["c"] for row in rows] == list(FACTORS)
    for row in rows:
        assert row["worst_lying"] <= row["worst"] <= row["gain"]  # type: ignore[operator]
    assert rows[0]["worst_lying"] >= rows[-1]["worst_lying"]  # type: ignore[operator]


def test_what_is_drawn_passes_the_guard_and_is_withheld_as_in_service() -> None:
    queries = (Query("q1", "registerd nurse", {}), Query("q2", "zxqv", {}))
    first, again = (asyncio.run(show(DEFAULT_CHECKPOINT, queries)) for _ in range(2))
    assert first == again
    assert "registered nurses" in {rewrite.text for rewrite in first["q1"].honest}
    texts = [rewrite.text for rewrite in first["q1"].samples]
    assert len(texts) == len(set(texts)) > 1
    shown = {rewrite.confidence for own in first.values() for rewrite in own.samples}
    assert 0.0 in shown
    assert max(shown) > 0.5
