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
    from collections.abc import Callable, Generator, Iterator

    from fastapi import FastAPI

    Report = pytest.TestReport | pytest.CollectReport

ROOT = Path(__file__).parents[1]


def _demanded(report: Report) -> Report:
    """The report; failed where something was skipped and nothing may be, as in continuous integration."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("COREWRITE_NO_SKIPS"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{reason} (COREWRITE_NO_SKIPS is set)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    return _demanded((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    return _demanded((yield))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets, where this machine has them."""
    folder = Path(os.environ.get("COREWRITE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not in {folder}; set COREWRITE_SHARED to their folder")
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
