"""Rollouts on real replicas and a real store, while these break: no search fails, nothing is promoted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.registry.place import Place
from app.registry.store import Registry
from training.canary import ab
from training.canary import bounds as promised
from training.canary.ab import AbConfig, Fault, Proof, crash_of
from training.canary.checkpoints import twin
from training.canary.pages import Page
from training.canary.people import People
from training.canary.processes import Replica, until
from training.canary.service import Service, running_service
from training.needs import Need
from training.users import User

NEEDS = [
    Need(f"{level} {trade}", frozenset({"wanted"}))
    for level in ("junior", "senior", "lead", "trainee", "night shift", "part time", "head", "deputy")
    for trade in ("nurse", "welder", "baker", "driver", "clerk", "cook", "painter", "teacher", "tailor")
]
PLAN = """
prepare_s = 0
planned_searches = 2_000
stale_s = 60
[[steps]]
ratio = 0.5
min_searches = 100_000
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "fallback"
better = "lower"
scale = "absolute"
margin = 0.01
tolerated = 0.05
"""
CONFIG = AbConfig(
    drill=Path("none"),
    hack="none",
    gate={},
    clients=500,
    holdout_ratio=0.1,
    before=0,
    most=1200,
    most_unchanged=1200,
    plan=PLAN,
)


class OnePage:
    async def of(self, _need: Need, _answer: Any) -> Page:
        return Page(("wanted", "another"), 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rollouts")
    registry = Registry(Place.at(str(folder / "registry")))
    digest = registry.push(DEFAULT_CHECKPOINT)
    registry.aliases.point("stable", digest, who="ann", why="it serves", when=datetime.now(UTC))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    options = {"rollout_decide_s": 0.2, "rollout_poll_s": 0.1, "rollout_flush_s": 0.2, "holdout_ratio": 0.1}
    with running_service(folder / "service", folder / "registry", replicas=2, **options) as service:
        yield service


@pytest.fixture
def proof(service: Service, monkeypatch: pytest.MonkeyPatch) -> Proof:
    monkeypatch.setattr(ab, "ROUND", 200)
    people = People(NEEDS, clients=CONFIG.clients, user=User(), seed=time.time_ns())
    return Proof(CONFIG, service, people, OnePage())  # type: ignore[arg-type]


def set_ahead(replica: Replica) -> None:
    replica.move_clock(ab.DAY_S)

    def is_ahead() -> bool:
        seen = httpx.get(f"{replica.url}/readyz").json()["rollouts"]["seen"]
        return datetime.fromisoformat(seen) > datetime.now(UTC) + timedelta(hours=23)

    until(is_ahead)


@pytest.mark.fault(
    broken="in a rollout a replica and PostgreSQL are killed (-9) and back, a clock is a day ahead",
    promised="no search fails, nothing counts twice, nothing is promoted or rolled back by it",
)
def test_a_replica_and_the_store_are_killed_and_nobody_notices(
    service: Service, proof: Proof, folder: Path
) -> None:
    first, second = service.replicas
    faults = [
        Fault(1, "a replica was killed", second.kill),
        Fault(2, "and started again", second.start),
        Fault(3, "the store was killed and started again", lambda: service.store.restart(1.5)),
        Fault(4, "a clock was set a day ahead", lambda: set_ahead(first)),
        Fault(5, "and right again", lambda: first.move_clock(0)),
    ]
    same, counted_before = twin(folder, "no-change"), promised.counted(service)
    seen = asyncio.run(proof.rollout("no-change", same, ("finerank",), ungated=True, faults=faults))
    assert seen["tally"]["failed"] == 0
    assert seen["status"]["last"]["state"] == "running", dict(seen["tally"]["reasons"])
    assert sum(seen["tally"]["searches"].values()) == 1200
    # The replica that was killed took what it had not flushed with it, of one round; nothing counts twice.
    until(lambda: promised.counted(service) - counted_before >= 1000)
    time.sleep(1.0)  # more than a flush
    assert promised.counted(service) - counted_before <= 1200
    assert len(seen["faults"]) == 5
    json.dumps(seen)


@pytest.mark.fault(
    broken="the canary's engine dies (its thread) whenever it is asked",
    promised="its clients get the original, and the controller rolls it back",
)
def test_an_engine_that_dies_whenever_it_is_asked_is_rolled_back(
    service: Service, proof: Proof, folder: Path
) -> None:
    crashing = twin(folder, "crash")
    faults = [crash_of(service, crashing)]
    seen = asyncio.run(
        proof.rollout("crash", crashing, ("finerank",), ungated=True, faults=faults, most=6000)
    )
    assert seen["tally"]["failed"] == 0
    assert seen["tally"]["reasons"]["engine_unavailable"] > 0
    last = seen["status"]["last"]
    assert (last["state"], last["who"], last["why"]) == (
        "rolled_back",
        "controller",
        "harm is shown: fallback",
    )
    assert service.status()["stable"] is None  # what serves is what served before


@pytest.mark.fault(
    broken="a replica is killed (-9) between two flushes",
    promised="searches not counted are those of `rollout_flush_s` at most",
)
def test_what_a_crash_takes_with_it_is_what_was_not_flushed(
    service: Service, proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ORDERS", 1), ("CRASHES", 1), ("SEARCHES", 800)):
        monkeypatch.setattr(promised, name, value)
    found = asyncio.run(proof.bounds())
    (crash,) = found["crashes"]
    assert (crash["answered"], crash["failed"]) == (800, 0)
    assert crash["answered"] - crash["counted"] <= min(crash["within_flush_s"], crash["by_victim"])
    assert [len(seconds) for seconds in found["followed_s"].values()] == [1, 1]
    assert not service.status()["killed"]
