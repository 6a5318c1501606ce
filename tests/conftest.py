"""Puts this folder on the path, for `fakes`, and builds apps as production does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import FakeCheckpoint, FakeEngine, FakeRelevance
from hypothesis import settings
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets, where this machine has them; continuous integration must have them."""
    folder = Path(os.environ.get("COREWRITE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        message = f"the real data sets are not in {folder}; set COREWRITE_SHARED to their folder"
        if os.environ.get("COREWRITE_REQUIRE_SHARED"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


# A busy machine is not a bug: examples may take their time.
settings.register_profile("corewrite", deadline=None)
settings.load_profile("corewrite")


@pytest.fixture(autouse=True)
def _no_relevance_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading one takes longer than most tests, which need none; the others say which."""
    monkeypatch.setenv("REWRITE_RELEVANCE", "none")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def make_app(engine: FakeEngine) -> Callable[..., FastAPI]:
    """`create_app` over the fake engine; keyword arguments are settings."""

    def make(
        checkpoint: FakeCheckpoint | None = None, relevance: FakeRelevance | None = None, **options: object
    ) -> FastAPI:
        return create_app(
            Settings(**options),
            engine=engine,
            checkpoint=checkpoint or FakeCheckpoint(),
            relevance=relevance,
        )

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> Iterator[TestClient]:
    with TestClient(make_app(deadline_ms=2000)) as client:
        yield client
