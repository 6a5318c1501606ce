"""Clocks that are set a day ahead or back while everything runs."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from controllers import Controller, begin, deciding, ends_in_s, prepare, state
from searcher import QUERIES, REWRITE, asked
from waiting import wait_until
from world import World, learn, make_registry, settings, started

from training.canary.processes import Replica

if TYPE_CHECKING:
    from pathlib import Path

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _moves_clocks() -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed: apt-get install faketime")


def set_clock(replica: Replica, days: int) -> None:
    """Return when the replica sees it."""
    replica.move_clock(days * DAY_S)

    def sees() -> bool:
        moment = httpx.get(f"{replica.url}/readyz").json()["rollouts"]["seen"]
        ahead = datetime.fromisoformat(moment) - datetime.now(UTC)
        return abs(ahead - timedelta(days=days)) < timedelta(hours=1)

    wait_until(sees, within_s=30)


@pytest.mark.fault(
    broken="the clock of a replica is set a day ahead, a day back, and right, under searches and events",
    promised="deadlines, counts and the tokens of events hold; nobody notices",
)
def test_a_replica_jumps(world: World, seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        for days in (1, -1, 0):
            set_clock(world.replicas[0], days)
            searcher.more(40)
    seen.update(searcher.facts())
    assert (seen["retried"], seen["degraded"], seen["refused"]) == (0, 0, 0)


@pytest.mark.fault(
    broken="the clock of a replica and of its store (SQLite) is set two days ahead, then two days back",
    promised="what is cached stays so long as its time to live, and what is answered before counts after",
)
def test_a_cache_and_its_tokens_outlive_a_jump(tmp_path: Path, seen: dict[str, Any]) -> None:
    database = f"sqlite:///{tmp_path / 'rollouts.db'}"
    options = settings(tmp_path, rollouts=database, cache_entries=1000, cache_ttl_s=DAY_S)
    replica = Replica("replica", tmp_path, options)
    with started((replica,)), httpx.Client(base_url=replica.url, timeout=30) as client:
        learn(replica.url)
        for days in (2, -2):
            before = client.post(REWRITE, json=asked(REWRITE, QUERIES[0])).json()
            set_clock(replica, days)
            answers = [client.post(REWRITE, json=asked(REWRITE, query)).json() for query in QUERIES]
            assert {answer["cache"] for answer in answers} == {"hit"}
            click = {"query_id": before["query_id"], "action_name": "click", "exposure": before["exposure"]}
            taken = client.post("/v1/events", json={"events": [{**click, "event_id": f"{days} days"}]}).json()
            assert (taken["accepted"], taken["unknown"]) == (1, 0)
    seen["note"] = f"{2 * len(QUERIES)} of {2 * len(QUERIES)} were hits"


@pytest.mark.fault(
    broken="the controller that decides has a clock a day ahead, or a day back, and is killed (-9)",
    promised="its lease holds nobody up: another one decides",
)
@pytest.mark.parametrize("ahead", ["+1d", "-1d"])
def test_a_lease_by_a_wrong_clock_holds_nobody_up(tmp_path: Path, ahead: str, seen: dict[str, Any]) -> None:
    make_registry(str(tmp_path / "registry"))
    # Whose clock is that of who asks. While both live they take turns: each transition has one winner.
    database = f"sqlite:///{tmp_path / 'rollouts.db'}"
    prepare(database)
    wrong, right = (Controller(database, tmp_path / "registry", clock) for clock in (ahead, "+0"))
    with deciding(wrong):
        assert abs(ends_in_s(database)) > DAY_S / 2
        with deciding(right):
            wrong.kill()
            killed = time.monotonic()
            begin(database)
            wait_until(lambda: state(database) == "running", within_s=60)
    seen["note"] = f"{ahead}: the other one decided {time.monotonic() - killed:.1f} s after"
