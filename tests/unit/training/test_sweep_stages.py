"""Choosing the weights of the stages: on titles without clicks, and what is written is what was measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest
from fakes import FakeRelevance

from training.datasets.beir import Document, Query, Task
from training.datasets.judgements import click_side
from training.evaluate import Rewrite
from training.evaluate_stages import arm_values, stage_rows
from training.search import Knobs, Stack
from training.sweep_stages import clean_sides, draw, sweep

WORDS = ("night", "nurse", "shift", "welder", "icu", "rn", "registered", "care", "job", "lead")


def task() -> Task:
    rng = Random(5)
    documents = tuple(Document(f"d{n}", "", " ".join(rng.sample(WORDS, 3)) + f" {n}") for n in range(150))
    relevant = {one.doc_id: 1 for one in documents if "nurse" in one.content}
    return Task(
        documents,
        (Query("q1", "icu rn", {}), Query("q2", "night care", {})),
        {"q1": relevant, "q2": relevant},
    )


def test_each_row_is_what_the_evaluation_says_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relevance, only = FakeRelevance(), task()
    rewrites = {"q1": [Rewrite("registered nurse", 0.6)], "q2": []}
    settings = [Knobs(0.0, 0.0, 3.0), Knobs(2.0, 2.0, 1.0), Knobs(1.0, 2.0, 10.0, 0.1)]
    neutral, bounded, free = asyncio.run(sweep({"seen": (only, rewrites)}, relevance, settings))  # type: ignore[arg-type]
    assert neutral["seen finerank"] == bounded["seen finerank"] == 0  # b = 0, c = 1
    stack = asyncio.run(Stack.over(only.documents, relevance))
    found = arm_values(only, stack, rewrites, knobs=settings[2], arms=("none", "finerank", "parallel"))
    rows = stage_rows(asyncio.run(found))
    assert free["seen none"] == round(rows[0].ndcg, 4)
    assert [free["seen finerank"], free["seen parallel"]] == [round(row.delta, 4) for row in rows[1:]]
    assert free["seen parallel low"] == round(rows[2].delta_ci[0], 4)
    assert free["seen finerank"] != 0


def test_no_title_has_an_occupation_with_clicks_but_those_hidden_from_them(shared_data: Path) -> None:
    sides = clean_sides(shared_data / "jobs", 40)
    codes = {query.fields["onet_code"] for query in sides["seen"].queries}
    assert "train" not in {click_side(code) for code in codes}
    assert [len(task.queries) for task in sides.values()] == [40, 40, 40]


def test_what_was_swept_is_drawn(tmp_path: Path) -> None:
    rows = [
        {
            "rawrank": r,
            "finerank": b,
            "c": c,
            "break_even": 0.2,
            "seen none": 0.2,
            "seen finerank": 0.01 * b,
            "seen parallel": 0.02 * b,
        }
        for b in (1.0, 2.0)
        for c in (3.0, 10.0)
        for r in (0.5, 1.0)
    ]
    draw(rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
