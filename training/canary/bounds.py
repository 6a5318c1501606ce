"""What is promised in seconds, measured on real replicas: the kill switch, following, what a crash loses."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from app.rollout.database import Database
from app.rollout.evidence import MEASURES
from app.rollout.tables import COUNTS
from training.canary.processes import Replica
from training.canary.replay import Replay
from training.canary.service import Service

ORDERS = 20
CRASHES = 5
SEARCHES = 6_000
LOOK_S = 0.005


async def bounds(service: Service, replay: Callable[[], Replay], *, flush_s: float) -> dict[str, Any]:
    """Return what was measured; the service is left as it was, all replicas up.

    Args:
        service: two replicas.
        replay: makes a new one, for searches while a replica is killed.
        flush_s: seconds between two flushes of a replica.
    """
    followed: dict[str, list[float]] = {"killed": [], "back": []}
    for _ in range(ORDERS):
        for name, on in (("killed", True), ("back", False)):
            began = time.monotonic()
            await asyncio.to_thread(service.kill, on=on)
            waits = (asyncio.to_thread(_seconds_until, one, on=on, since=began) for one in service.replicas)
            followed[name].append(max(await asyncio.gather(*waits)))
    crashes = [await _crash(service, replay(), flush_s) for _ in range(CRASHES)]
    return {"name": "bounds", "followed_s": followed, "flush_s": flush_s, "crashes": crashes}


async def _crash(service: Service, replay: Replay, flush_s: float) -> dict[str, float]:
    """Kill a replica under load; return how many searches it had answered, and how many nobody counted.

    `within_flush_s` are those that it had answered in the last `flush_s` of its life.
    """
    *_, victim = service.replicas
    before = await asyncio.to_thread(counted, service)

    async def kill() -> int:
        by, seen = replay.tally.by, deque([(time.monotonic(), 0)])
        while by.total() < SEARCHES / 2:
            await asyncio.sleep(LOOK_S)
            seen.append((time.monotonic(), by[victim.url]))
            while seen[0][0] < seen[-1][0] - flush_s:
                seen.popleft()
        await asyncio.to_thread(victim.kill)
        return by[victim.url] - seen[0][1]

    _, within = await asyncio.gather(replay.run(SEARCHES), kill())
    await asyncio.sleep(3.0)  # for the flush of the one that is left
    found = await asyncio.to_thread(counted, service) - before
    await asyncio.to_thread(victim.start)
    return {
        "answered": sum(replay.tally.searches.values()),
        "by_victim": replay.tally.by[victim.url],
        "within_flush_s": within,
        "counted": found,
        "failed": replay.tally.failed,
    }


def counted(service: Service) -> float:
    """All searches that the store has."""
    database = Database(service.database)
    try:
        with database.begin() as connection:
            return float(connection.scalar(select(func.sum(COUNTS.c[MEASURES[0]]))) or 0.0)
    finally:
        database.close()


def _seconds_until(replica: Replica, *, on: bool, since: float) -> float:
    """When a replica says that everybody gets the original, or that they do not any longer."""
    said = f"corewrite_killed {float(on)}"
    while True:
        with urllib.request.urlopen(f"{replica.url}/metrics", timeout=5) as answer:  # noqa: S310 -- our own
            if said in answer.read().decode():
                return time.monotonic() - since
        time.sleep(LOOK_S)
