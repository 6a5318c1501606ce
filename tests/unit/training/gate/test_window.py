"""The window: newer than what was learnt from, and of the searches that were asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from small_checkpoint import write_checkpoint

from app.contracts.manifest import DataWindow, Manifest
from app.registry.checkpoint import load_checkpoint
from training.datasets.examples import DataError
from training.gate.window import Window, WindowConfig, problem_of, read_window


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, number, hour, tzinfo=UTC)


def manifest(folder: Path, **facts: Any) -> Manifest:
    return load_checkpoint(write_checkpoint(folder, **facts)).manifest


def window(first: datetime) -> Window:
    return Window((), (), DataWindow(first=first, last=day(30)))


def test_a_window_begins_when_what_was_learnt_from_has_ended(tmp_path: Path) -> None:
    learnt = {"first": day(1).isoformat(), "last": day(8).isoformat()}
    candidate = manifest(tmp_path / "one", data_window=learnt)
    assert problem_of(candidate, window(day(8))) is None
    assert "begins 2026-11-07 23:00, before 2026-11-08 00:00" in str(
        problem_of(candidate, window(day(7, 23)))
    )
    assert "does not say" in str(problem_of(manifest(tmp_path / "two"), window(day(8))))


def search(number: int, at: datetime) -> list[dict[str, Any]]:
    ids = {"query_id": f"q{number}", "timestamp": at.isoformat()}
    event = {**ids, "user_query": f"query {number}", "event_attributes": {"object": {"object_id": "1"}}}
    return [{**event, "action_name": "impression"}, {**event, "action_name": "click"}]


@pytest.fixture
def config(tmp_path: Path, write_jsonl: Any) -> dict[str, Any]:
    from app.registry.checkpoint import DEFAULT_CHECKPOINT  # noqa: PLC0415 -- its tokenizer is all that is read

    corpus = write_jsonl(
        "corpus.jsonl", [{"_id": "1", "title": "", "text": "nurse"}, {"_id": "2", "title": "", "text": "x"}]
    )
    log = write_jsonl("log.ndjson", [line for n in range(40) for line in search(n, day(1 + n // 4, n % 4))])
    return {
        "seed": 1,
        "data_dir": tmp_path,
        "checkpoint": DEFAULT_CHECKPOINT,
        "relevance": tmp_path,
        "logs": [{"corpus": corpus, "events": [log]}],
    }


def test_only_its_days_are_read(config: dict[str, Any], tmp_path: Path) -> None:
    given = WindowConfig.model_validate(config | {"since": day(4), "until": day(6)})
    found = read_window(given, tmp_path, most=100)
    assert {one.query for one in found.instances} == {f"query {n}" for n in range(12, 20)}
    assert found.span.first == day(4)
    assert day(5, 3) < found.span.last < day(5, 4)


def test_as_many_as_asked_for_whatever_the_order_of_the_log(config: dict[str, Any], tmp_path: Path) -> None:
    given = WindowConfig.model_validate(config)
    some = read_window(given, tmp_path, most=10)
    assert len({one.query for one in some.instances}) == 10
    assert some == read_window(given, tmp_path, most=10)
    other = read_window(given.model_copy(update={"seed": 2}), tmp_path, most=10)
    assert {one.query for one in other.instances} != {one.query for one in some.instances}
    whole = read_window(given, tmp_path, most=100)
    held_out = read_window(given.model_copy(update={"held_out": True}), tmp_path, most=100)
    assert 0 < len(held_out.instances) < len(whole.instances) == 40


def test_a_window_without_clicks_is_none(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no search with a click"):
        read_window(WindowConfig.model_validate(config | {"since": day(20)}), tmp_path, most=10)
