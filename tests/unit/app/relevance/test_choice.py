"""Which relevance model the settings name, up to the route that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from counting_model import counting_graph, write_model
from fakes import FakeCheckpoint, FakeEngine, FakeRelevance
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.errors import CheckpointError
from app.main import create_app
from app.relevance.base import Content
from app.relevance.choice import make_relevance
from app.relevance.graph import GraphHead
from app.relevance.model import OnnxRelevance
from app.relevance.remote import RemoteRelevance
from app.settings import Settings

REQUEST = {
    "query": "registered nurse",
    "candidates": [{"id": "a", "text": "nurse"}, {"id": "b", "text": "welder", "image": [0.5, 0.5]}],
    "deadline_ms": 20_000,
}


def serving(folder: Path) -> FastAPI:
    settings = Settings(relevance="onnx", relevance_path=folder)
    return create_app(settings, engine=FakeEngine(), checkpoint=FakeCheckpoint())


def test_a_folder_serves_every_stage(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "counting", counting_graph())
    with TestClient(serving(folder)) as client:
        stages = client.post("/v1/signals", json=REQUEST).json()["stages"]
        assert stages["recall"]["queries"][0]["embedding"]
        for stage in ("rawrank", "finerank"):
            assert stages[stage]["reason"] is None
            assert {document["phi"] for document in stages[stage]["documents"]} != {1.0}
        wrong = {**REQUEST, "candidates": [{"id": "a", "text": "nurse", "image": [0.5]}]}
        assert "2 numbers" in client.post("/v1/signals", json=wrong).json()["detail"]


def test_without_one_the_stages_are_neutral_and_say_so(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app()) as client:
        answer = client.post("/v1/signals", json=REQUEST).json()
    stages = answer["stages"]
    assert answer["relevance_digest"] is None
    for stage in ("rawrank", "finerank"):
        assert stages[stage]["reason"] == "relevance_unavailable"
        assert {document["phi"] for document in stages[stage]["documents"]} == {1.0}
    assert stages["recall"]["queries"]


@pytest.mark.parametrize(("entries", "runs"), [(0, 4), (1, 3), (2, 2)])
def test_as_many_documents_are_remembered_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int, runs: int
) -> None:
    folder = write_model(tmp_path / "counting", counting_graph())
    model = make_relevance(
        Settings(relevance="onnx", relevance_path=folder, relevance_memory_entries=entries)
    )
    assert isinstance(model, OnnxRelevance)
    seen, run = [], GraphHead.run
    monkeypatch.setattr(GraphHead, "run", lambda head, rows: seen.append(len(rows)) or run(head, rows))

    async def ask() -> None:
        for text in ("nurse", "welder", "welder", "nurse"):
            await model.embed_documents([Content(text)])
        await model.close()

    asyncio.run(ask())
    assert seen == [1] * runs


def test_a_server_may_stand_in_for_it() -> None:
    settings = Settings(relevance="remote", relevance_url="http://models", relevance_model="bge")
    assert isinstance(make_relevance(settings), RemoteRelevance)
    assert make_relevance(Settings(relevance="none")) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"relevance": "remote", "relevance_url": "http://models"},
            "needs relevance_url and relevance_model",
        ),
    ],
)
def test_half_a_setting_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**options)


def test_a_folder_that_is_none_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the folder of a relevance model"):
        serving(tmp_path)


def test_one_that_is_handed_in_replaces_the_settings(make_app: Callable[..., FastAPI]) -> None:
    relevance = FakeRelevance()
    with TestClient(make_app(None, relevance)) as client:
        assert client.post("/v1/signals", json=REQUEST).status_code == 200
    assert relevance.asked
