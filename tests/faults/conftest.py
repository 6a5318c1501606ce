"""Each test of a fault says what breaks and what is promised; what it saw goes into a file if asked for."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faults_page import declared
from world import World, running_world

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SEEN = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=Path, metavar="FILE", help="write there what is seen")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(broken, promised): what this test breaks, and what is promised")
    config.addinivalue_line("markers", "long: only where all is asked for, by --faults")
    config.stash[SEEN] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    quick = config.getoption("--faults", default=None) is None
    for item in tuple(items):
        if quick and item.get_closest_marker("long") is not None:
            items.remove(item)
            config.hook.pytest_deselected(items=[item])
        if item.path.is_relative_to(HERE) and item.get_closest_marker("fault") is None:
            raise pytest.UsageError(f"{item.nodeid}: say by @pytest.mark.fault what breaks")


FACTS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the test has seen, by name; see `faults_page` for how it is told."""
    facts: dict[str, Any] = {}
    request.node.stash[FACTS] = facts
    return facts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    marker = item.get_closest_marker("fault")
    if marker is not None and (call.when == "call" or report.outcome != "passed"):
        name = item.nodeid.partition("[")[0].removeprefix("tests/faults/")
        rows = item.config.stash[SEEN]
        row = rows.setdefault(name, {"measured": _where_and_when(), "outcomes": {}, "facts": []})
        row["outcomes"][report.outcome] = row["outcomes"].get(report.outcome, 0) + 1
        if facts := item.stash.get(FACTS, {}):
            row["facts"].append(facts)
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--faults", default=None)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = {**before, **session.config.stash[SEEN]}
        rows = {name: found[name] for name in declared() if name in found}
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _where_and_when() -> str:
    return f"{os.cpu_count()} cores {platform.machine()}, {datetime.now(UTC).date()}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("world")) as world:
        yield world
