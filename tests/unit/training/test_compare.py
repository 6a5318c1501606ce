"""Checkpoints side by side: differences are of the same queries, to the first checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.compare import OTHERS, main, rows_of
from training.datasets.beir import Query, Task


def test_each_is_compared_with_the_first_query_by_query() -> None:
    rng = np.random.default_rng(1)
    first = rng.uniform(0, 0.5, 200)
    values = {"a": {"parallel": first}, "b": {"parallel": first + 0.1}, "c": {"parallel": first + 0.3}}
    rows = {row["checkpoint"]: row for row in rows_of(values)}
    assert [rows[name]["delta"] for name in ("a", "b", "c", OTHERS)] == [0.0, 0.1, 0.3, 0.2]
    assert rows["b"]["delta_ci"] == [0.1, 0.1]  # paired: what queries have in common is no uncertainty
    assert rows["a"]["ndcg@10"] == round(float(first.mean()), 4)


def test_one_other_has_no_mean() -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    rows = rows_of({"a": {"none": zeros, "alone": ones}, "b": {"none": ones, "alone": zeros}})
    assert [(row["arm"], row["checkpoint"], row["delta"]) for row in rows] == [
        ("none", "a", 0.0),
        ("none", "b", 1.0),
        ("alone", "a", 0.0),
        ("alone", "b", -1.0),
    ]


def test_a_missing_split_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--data", str(tmp_path), "--split", "dev"]) == 2
    assert "dev.tsv" in capsys.readouterr().err


def test_typos_and_judged_documents_alone_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task((), (Query("1", "laptop stand"),), {"1": {"d": 1}})
    told: dict[str, Any] = {}

    def compare(task: Task, checkpoints: Any, *_: Any, only_judged: bool) -> list[dict[str, Any]]:
        told.update(query=task.queries[0].text, only_judged=only_judged, checkpoints=checkpoints)
        return [{"arm": "none"}]

    monkeypatch.setattr("training.compare.read_task", lambda *_: task)
    monkeypatch.setattr("training.compare.compare", compare)
    words = ["a", "b", "--data", "x", "--split", "dev", "--typos", "7", "--only-judged"]
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
    assert told["only_judged"]
    assert told["checkpoints"] == [Path("a"), Path("b")]
    assert told["query"] != "laptop stand"
    assert json.loads(capsys.readouterr().out) == {"arm": "none"}
    assert json.loads((tmp_path / "out.json").read_text())["typos"] == 7
