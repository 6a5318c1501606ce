"""A remote fleet that is killed, slow, or back with other weights: the original, then rewrites again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fleet import MODEL, FleetProcess, running_fleet
from searcher import searching
from world import judge_searches, learn, settings, started

from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from loadtest.proxy import Way, way_to
from loadtest.sibling import make_sibling
from training.canary.processes import Replica

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from searcher import Expected


@pytest.fixture(scope="module")
def fleet() -> Iterator[FleetProcess]:
    with running_fleet(DEFAULT_CHECKPOINT) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def way(fleet: FleetProcess) -> Iterator[Way]:
    with way_to(fleet.port) as way:
        yield way


@pytest.fixture(scope="module")
def replica(way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("fleet")
    url = f"http://127.0.0.1:{way.port}"
    options = {"engine": "openai", "openai_url": url, "openai_model": MODEL, "generation_timeout_s": 1.5}
    replica = Replica(
        "replica", folder, settings(folder, **options, deadline_ms=1000, signals_deadline_ms=1000)
    )
    with started((replica,)):
        yield replica


@pytest.fixture(scope="module")
def expected(replica: Replica) -> Expected:
    return learn(replica.url)


@pytest.mark.fault(
    broken="the engine's process (a fleet behind the openai engine) is killed (-9) and started again",
    promised="the original with `engine_unavailable` or `engine_error` meanwhile, rewrites again after",
)
def test_the_engine_is_killed_and_started_again(
    fleet: FleetProcess, replica: Replica, expected: Expected, seen: dict[str, Any]
) -> None:
    with searching([replica.url], expected, events=False) as searcher:
        fleet.kill()
        searcher.more(50)
        assert {one.answer["reason"] for one in searcher.searches[-20:] if one.answer} == {
            "engine_unavailable"
        }
        fleet.start()
        searcher.rewrites_again()
    seen.update(searcher.facts())
    judge_searches(searcher)


@pytest.mark.fault(
    broken="the fleet is killed (-9) and comes back with other weights, then with the right ones",
    promised="no answer by weights that it does not name: the original until the right ones are proven",
)
def test_the_engine_comes_back_with_other_weights(
    fleet: FleetProcess, replica: Replica, expected: Expected, tmp_path: Path, seen: dict[str, Any]
) -> None:
    right = fleet.folder
    other = make_sibling(load_checkpoint(right), tmp_path / "other")
    with searching([replica.url], expected, events=False) as searcher:
        fleet.kill()
        fleet.folder = other.path
        searcher.more(20)
        fleet.start()
        searcher.more(100)
        assert not any(one.said for one in searcher.searches[-20:])
        fleet.kill()
        fleet.folder = right
        fleet.start()
        searcher.rewrites_again()
    seen.update(searcher.facts())
    judge_searches(searcher)


def slow(way: Way) -> None:
    way.latency_s = 0.5


def trickling(way: Way) -> None:
    way.bytes_per_s = 50


@pytest.mark.fault(
    broken="the fleet answers late, byte by byte, never, or by resets",
    promised="the original by the deadline, rewrites again after",
)
@pytest.mark.parametrize(
    "spoil", [slow, pytest.param(trickling, marks=pytest.mark.long), Way.silence, Way.tear]
)
def test_the_engine_is_slow(
    way: Way, replica: Replica, expected: Expected, spoil: Callable[[Way], None], seen: dict[str, Any]
) -> None:
    with searching([replica.url], expected, events=False) as searcher:
        spoil(way)
        searcher.more(20)
        assert searcher.searches[-1].degraded
        way.mend()
        searcher.rewrites_again()
    seen.update(searcher.facts())
    judge_searches(searcher)
