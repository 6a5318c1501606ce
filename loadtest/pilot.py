"""How many journeys a second a machine can do at all, by a closed loop: a first unit of rates."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from loadtest.client import Client
from loadtest.drive import Load
from loadtest.fleet import fleet
from loadtest.open_loop import closed_loop
from loadtest.scenarios import Scenario, Stretch
from loadtest.trace import Search, searches

CLIENTS = 8
"""Enough to keep every thread busy; few enough that none of them waits for its deadline."""
WARM_S, MEASURED_S = 8.0, 10.0


def journeys_per_s(load: Load, folder: Path) -> float:
    """Return what CLIENTS get who do one journey after the other, without a thought and without events."""
    why = "the pilot"
    scenario = Scenario(name="pilot", why=why, stretches=(Stretch(seconds=60, rate=0.0),))
    with fleet(scenario, folder, load.settings) as servers:

        async def go() -> float:
            async with Client([server.url for server in servers.servers]) as client:

                async def journey(search: Search) -> None:
                    await client.post("/v1/rewrite", search.rewrite)
                    await client.post("/v1/signals", search.signals)

                rate = 0.0
                people = searches(load.corpus, load.traffic, queries=None, run="pilot", seed=load.seed)
                for seconds in (WARM_S, MEASURED_S):
                    rate = await closed_loop(
                        journey, people, clients=CLIENTS, seconds=max(seconds * load.scale, 1.0)
                    )
                return rate

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(go())
