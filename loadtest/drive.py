"""One scenario from beginning to end: servers, load, incidents, samples, and what came of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtest.client import Client
from loadtest.correct import Expected, expectations, stored_events, told_apart, wrong_versions
from loadtest.fleet import Fleet, fleet
from loadtest.incidents import Happened, act
from loadtest.journeys import Journeys
from loadtest.measure import lag_p99_ms, measures, saturation, slope_per_min, windows
from loadtest.processes import resident_mb
from loadtest.scenarios import Incident, Scenario, Traffic
from loadtest.schedule import Piece, arrivals, rate_at
from loadtest.trace import Corpus, searches

SAMPLE_S = 1.0
SETTLE_S = 2.0
"""For the last flush of what was counted."""
MOST_WINDOWS = 120
STEP_S = 5.0
"""Of a rising load, on which it is decided where saturation is."""


@dataclass(frozen=True, slots=True)
class Load:
    """What all scenarios of a run have in common.

    Args:
        traffic: what a journey is.
        settings: of all servers.
        corpus: what is searched for.
        folder: of logs and records.
        unit_per_s: journeys per second at which this machine is saturated.
        scale: of all times.
        seed: of all draws.
    """

    traffic: Traffic
    settings: Mapping[str, object]
    corpus: Corpus
    folder: Path
    unit_per_s: float
    scale: float = 1.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class _Sampled:
    cpu_ratio: float
    memory: list[tuple[float, float]]


def drive(scenario: Scenario, load: Load) -> dict[str, Any]:
    """Run a scenario; return what it has measured, for JSON.

    Raises:
        ProcessError: a server does not start.
    """
    folder, scale = load.folder / scenario.name, load.scale
    seconds, warm_s = scenario.seconds * scale, scenario.warm_s * scale
    calm_from = (scenario.seconds - scenario.calm_s) * scale
    run = f"{scenario.name}-{time.time_ns():x}"
    with fleet(scenario, folder, load.settings) as servers:
        expected: Expected = {}
        if scenario.judged:
            count = scenario.queries or load.traffic.queries
            expected = expectations(servers, load.corpus.queries[:count])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            journeys, happened, sampled = runner.run(_go(scenario, load, servers, run))
        time.sleep(SETTLE_S)
        stored, counted = stored_events(servers.database, run)
    records = journeys.records
    records.save(folder / "records.npz")
    span = {"start_s": warm_s, "end_s": seconds}
    found = measures(records, **span)
    if scenario.calm_s:
        calm = measures(records, start_s=calm_from, end_s=seconds)
        found |= {f"calm_{name}": value for name, value in calm.items()}
    found |= {
        "generator_lag_p99_ms": lag_p99_ms(records, journeys.beats, **span),
        "generator_cpu_ratio": sampled.cpu_ratio,
        "events_acknowledged": float(len(journeys.acknowledged)),
        "events_lost": float(len(journeys.acknowledged - stored)),
        "events_miscounted": abs(counted - len(stored)),
        "events_unacknowledged": float(journeys.unacknowledged),
        "incidents_astray": float(sum(not one.as_meant for one in happened)),
        "memory_mb": sampled.memory[-1][1] if sampled.memory else None,
        "memory_mb_per_min": slope_per_min(sampled.memory, start_s=seconds / 3),
    }
    rules: dict[str, int] = {}
    if scenario.judged:
        digests = {name: one.weights_digest for name, one in servers.checkpoints.items()}
        rules = dict(wrong_versions(journeys.history, happened, digests, expected))
        found["wrong_version"] = float(sum(rules.values()))
        found["canary_answers"] = float(len(journeys.history.get("canary", ())))
        found["told_apart_ratio"] = told_apart(expected)
        found["judged_answers"] = float(sum(map(len, journeys.history.values())))
    width_s = max(STEP_S * scale, 1.0)
    pieces = _pieces(scenario, load)
    steps = [
        {**step, "intended_per_s": rate_at(pieces, step["at_s"] + width_s / 2)}
        for step in windows(records, seconds=seconds, width_s=width_s)
    ]
    return {
        "name": scenario.name,
        "why": scenario.why,
        "unit_per_s": load.unit_per_s,
        "seconds": seconds,
        "warm_s": warm_s,
        "calm_from_s": calm_from if scenario.calm_s else None,
        "measures": found,
        "rules_broken": rules,
        "incidents": [_told(one) for one in happened],
        "steps": steps,
        "saturation_per_s": saturation(steps, warm_s=warm_s),
        "windows": windows(records, seconds=seconds, width_s=max(1.0, seconds / MOST_WINDOWS)),
        "memory": sampled.memory[:: max(1, len(sampled.memory) // MOST_WINDOWS)],
    }


async def _go(
    scenario: Scenario, load: Load, servers: Fleet, run: str
) -> tuple[Journeys, list[Happened], _Sampled]:
    """Drive people through, do what is to be done meanwhile, and look at the processes."""
    schedule = arrivals(_pieces(scenario, load), seed=load.seed)
    drawn = searches(load.corpus, load.traffic, queries=scenario.queries, run=run, seed=load.seed)
    # Drawn before, so that the time this takes is not the load's.
    people = list(itertools.islice(drawn, len(schedule)))
    async with Client([server.url for server in servers.servers]) as client:
        journeys = Journeys(client, remember=scenario.judged)
        memory: list[tuple[float, float]] = []
        own, wall = time.process_time(), time.perf_counter()
        journeys.began = wall
        watching = asyncio.create_task(_watch(servers, journeys, memory))
        try:
            async with asyncio.TaskGroup() as tasks:
                doing = tasks.create_task(_incidents(scenario.incidents, load.scale, servers, journeys))
                tasks.create_task(journeys.run(schedule, people))
            passed = time.perf_counter() - wall
        finally:
            watching.cancel()
        sampled = _Sampled((time.process_time() - own) / passed, memory)
        return journeys, doing.result(), sampled


def _pieces(scenario: Scenario, load: Load) -> list[Piece]:
    return [stretch.piece(load.unit_per_s, load.scale) for stretch in scenario.stretches]


async def _incidents(
    incidents: Sequence[Incident], scale: float, servers: Fleet, journeys: Journeys
) -> list[Happened]:
    happened = []
    for incident in sorted(incidents, key=lambda one: one.at):
        await asyncio.sleep(max(0.0, incident.at * scale - journeys.now()))
        happened.append(await asyncio.to_thread(act, servers, incident, journeys.now))
    return happened


async def _watch(servers: Fleet, journeys: Journeys, memory: list[tuple[float, float]]) -> None:
    while True:
        memory.append((journeys.now(), sum(map(resident_mb, servers.pids))))
        await asyncio.sleep(SAMPLE_S)


def _told(one: Happened) -> dict[str, Any]:
    return {
        "do": one.incident.do,
        "to": one.incident.to,
        "start_s": one.start_s,
        "end_s": one.end_s,
        "refused": one.refused,
        "as_meant": one.as_meant,
    }
