"""Parts of the service killed at once, as by a machine that is gone, and started again: searches go on."""

from __future__ import annotations

import time
from typing import Any

import pytest
from controllers import Controller, begin, deciding, holder, prepare, state
from waiting import wait_until
from world import World


@pytest.mark.fault(
    broken="a replica of two is killed (-9) and started again, under searches and events",
    promised="the caller's retry at the other one is answered; acknowledged events count once",
)
def test_a_replica_is_killed_and_started_again(world: World, seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        world.replicas[0].kill()
        searcher.more(50)
        world.replicas[0].start()
        searcher.more(50)
    seen.update(searcher.facts())
    assert seen["retried"] > 0


@pytest.mark.fault(
    broken="PostgreSQL is killed (-9) and started again, under searches and events",
    promised="searches do not notice; events are refused with 503 meanwhile, and count once when sent again",
)
def test_the_store_is_killed_and_started_again(world: World, seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        world.store.kill()
        searcher.more(100)
        assert searcher.refused
        acknowledged = len(searcher.acknowledged)
        searcher.more(20)
        assert len(searcher.acknowledged) == acknowledged
        world.store.start()
        searcher.reports_again()
    seen.update(searcher.facts())
    assert (seen["retried"], seen["degraded"]) == (0, 0)
    assert any(refusal.startswith("503 ") for refusal in searcher.refused), searcher.refused[:3]


@pytest.mark.fault(
    broken="Redis is killed (-9) and started again, empty, under searches",
    promised="each look-up is a miss, and it is used again after its return",
)
def test_the_shared_cache_is_killed_and_started_again(world: World, seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        world.redis.kill()
        searcher.more(50)
        world.redis.start()
        assert not world.redis.stored()
        searcher.more(100)
        assert world.redis.stored()
    seen.update(searcher.facts())
    assert (seen["retried"], seen["refused"]) == (0, 0)


@pytest.mark.fault(
    broken="the controller that decides (`corewrite control`) is killed (-9)",
    promised="another one takes the lease when it has run out, and the rollout goes on",
)
def test_the_controller_is_killed(world: World, seen: dict[str, Any]) -> None:
    database = world.store.database()
    first, second = (Controller(database, world.folder / "registry") for _ in range(2))
    prepare(database)
    with deciding(first, second):
        held = holder(database)
        first.kill()
        killed = time.monotonic()
        begin(database)
        wait_until(lambda: state(database) == "running", within_s=60)
        seen["note"] = f"another one decided {time.monotonic() - killed:.1f} s later, of a lease of 0.6 s"
        assert holder(database) != held
