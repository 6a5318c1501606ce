"""What requests cost, measured one kind at a time, and whether saturation follows from it.

Costs are CPU seconds of the server by thread, over closed loops that keep it busy, as it is where capacity is
asked for. Checks are loads that no cost was measured with: their hit ratio and their saturation are
predicted.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtest.capacity import Costs, Mix, demand, read_costs, saturation
from loadtest.client import Client
from loadtest.drive import Load
from loadtest.fleet import Server, fleet
from loadtest.hit_ratio import lru_hit_ratio, zipf_shares
from loadtest.open_loop import closed_loop, zipf
from loadtest.processes import cpu_s, main_thread_cpu_s
from loadtest.scenarios import Scenario, Stretch
from loadtest.trace import searches

CLIENTS = 16
"""Twice the beams of a full batch: what is measured is an engine that is never idle."""
MEASURED_S = 10.0
PATIENCE_MS = 60_000
WARM = 50
"""Requests before anything is measured."""
KNOWN = 50
"""Queries whose rewrites and documents are known before signals are measured."""
CANDIDATES = (20, 50)
BEAMS = (1, 4)
CHECK_CACHE = 200
CHECK_WARM = 1_000
"""Requests after which a cache of so many entries is as it stays."""
Ask = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Check:
    """Rewrites alone at a cache of CHECK_CACHE, in a closed loop.

    Args:
        queries: distinct ones.
        exponent: of Zipf's law, by which they come up.
        beam_width: of a generation.
    """

    queries: int
    exponent: float
    beam_width: int = 4


# The model had no waiting in it when it was held against the first two, and was 37 and 30 % too hopeful; the
# others were added with it.
CHECKS = (Check(2_000, 1.2), Check(4_000, 0.8), Check(3_000, 1.0), Check(2_000, 1.2, beam_width=1))


@dataclass(frozen=True, slots=True)
class Measured:
    """A closed loop: seconds of CPU per request by who took them."""

    per_s: float
    loop_s: float
    worker_s: float
    generator_s: float
    hit_ratio: float


def measure_costs(load: Load, folder: Path) -> dict[str, Any]:
    """Return CPU seconds per request by kind, for JSON; `read_costs` reads them."""
    fresh = iter(load.corpus.queries)
    found: dict[str, Any] = {"miss": {}, "signals": {}}
    for beam in BEAMS:
        with _server(load, folder, f"costs-beam-{beam}", beam_width=beam) as server:
            misses = _measure(load, server, (_rewrite(query) for query in fresh))
            found["miss"][beam] = _as_cost(misses, "engine_s")
            if beam != max(BEAMS):
                continue
            known = [next(fresh) for _ in range(KNOWN)]
            hits = _measure(load, server, itertools.cycle(map(_rewrite, known)))
            found["hit"] = _as_cost(hits, None)
            for count in CANDIDATES:
                asks = _signals(load, known, count)
                found["signals"][count] = _as_cost(_measure(load, server, asks), "relevance_s")
    return found


def check(load: Load, costs: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return, for loads that no cost was measured with, what is predicted beside what is measured."""
    known: Costs = read_costs({"costs": costs})
    told = []
    for number, one in enumerate(CHECKS):
        queries = min(one.queries, len(load.corpus.queries))
        hits = lru_hit_ratio(zipf_shares(queries, one.exponent), CHECK_CACHE)
        settings = {"cache_entries": CHECK_CACHE, "beam_width": one.beam_width}
        with _server(load, folder, f"check-{number}", **settings) as server:
            drawn = zipf(queries, one.exponent, seed=load.seed)
            asks = (_rewrite(load.corpus.queries[what]) for what in drawn)
            found = _measure(load, server, asks, warm=max(1, int(CHECK_WARM * load.scale)))
        wanted = demand(known, Mix(hits, signals=0.0, beam_width=one.beam_width))
        # The generator takes its part of the same cores.
        cores = len(os.sched_getaffinity(0)) / (1 + found.generator_s / wanted.total_s)
        per_s, bound_by = saturation(wanted, cores=cores)
        told.append(
            {
                **asdict(one),
                "queries": queries,
                "predicted_hit_ratio": hits,
                "measured_hit_ratio": found.hit_ratio,
                "bound_by": bound_by,
                "predicted_cpu_s": wanted.total_s,
                "measured_cpu_s": found.loop_s + found.worker_s,
                "predicted_per_s": per_s,
                "measured_per_s": found.per_s,
            }
        )
    return told


def _rewrite(query: str) -> Ask:
    return "/v1/rewrite", {"query": query, "deadline_ms": PATIENCE_MS}


def _signals(load: Load, known: list[str], count: int) -> Iterator[Ask]:
    """Searches, each of its own, for known queries with so many documents that come up each time."""
    traffic = load.traffic.model_copy(update={"candidates": (count, count)})
    drawn = searches(load.corpus, traffic, queries=KNOWN, run="", seed=load.seed)
    brought_up = [search.signals["candidates"] for search in itertools.islice(drawn, KNOWN)]
    for number in itertools.count():
        place = number % KNOWN
        yield (
            "/v1/signals",
            {"query": known[place], "candidates": brought_up[place], "deadline_ms": PATIENCE_MS},
        )


@contextmanager
def _server(load: Load, folder: Path, name: str, **settings: object) -> Iterator[Server]:
    # Patient to the end: what is measured is what an answer costs, not which are given up.
    patient = {"signals_deadline_ms": PATIENCE_MS, "deadline_ms": PATIENCE_MS, **settings}
    stretch = Stretch(seconds=60, rate=0.0)
    scenario = Scenario(name="costs", why="what requests cost", stretches=(stretch,), settings=patient)
    with fleet(scenario, folder / name, load.settings) as servers:
        yield servers.servers[0]


def _measure(load: Load, server: Server, asks: Iterable[Ask], *, warm: int = WARM) -> Measured:
    """Keep the server busy and return what a request took, once it is warm."""
    pid = server.pid or 0

    async def go() -> Measured:
        hits = 0

        async with Client([server.url], patience_s=PATIENCE_MS / 1000) as client:

            async def one(ask: Ask) -> None:
                nonlocal hits
                found = await client.post(*ask)
                if found.status != 200:  # noqa: PLR2004
                    raise RuntimeError(f"{ask[0]}: {found.status} {found.body}")
                hits += found.body.get("cache") == "hit"

            remaining = iter(asks)
            await closed_loop(one, itertools.islice(remaining, warm), clients=CLIENTS, seconds=math.inf)
            hits = 0
            began, before = time.perf_counter(), _cpu(pid)
            per_s = await closed_loop(one, remaining, clients=CLIENTS, seconds=MEASURED_S * load.scale)
            seconds = time.perf_counter() - began
            after = _cpu(pid)
        done = max(per_s * seconds, 1.0)
        own_s, loop_s, all_s = ((late - early) / done for late, early in zip(after, before, strict=True))
        return Measured(per_s, loop_s, all_s - loop_s, own_s, hits / done)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(go())


def _cpu(pid: int) -> tuple[float, float, float]:
    """CPU seconds of this process, of the server's event loop, of all of the server."""
    return time.process_time(), main_thread_cpu_s(pid), cpu_s(pid)


def _as_cost(found: Measured, worker: str | None) -> dict[str, float]:
    """For JSON: the worker's part goes to the thread that did it; of a hit all is the loop's."""
    told = {
        "per_s": found.per_s,
        "generator_s": found.generator_s,
        "loop_s": found.loop_s + (0.0 if worker else found.worker_s),
    }
    return {**told, worker: found.worker_s} if worker else told
