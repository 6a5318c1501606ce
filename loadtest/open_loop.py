"""Load on a server, of two kinds, measured so that a slow server cannot slow the measuring down.

Open loop: requests are sent when a schedule says, whether or not earlier ones are answered, and a latency
counts from the moment intended, so that a stall is charged to every request it delays. Closed loop: so many
clients, each sending its next request when the last is answered; what comes out is the capacity.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Send = Callable[[Item], Awaitable[None]]


def poisson_arrivals(rate_per_s: float, seconds: float, *, seed: int) -> list[float]:
    """Arrival times in seconds from the start, ascending, all before `seconds`."""
    draw = random.Random(seed)
    times, at = list[float](), 0.0
    while (at := at + draw.expovariate(rate_per_s)) < seconds:
        times.append(at)
    return times


def zipf(count: int, exponent: float, *, seed: int) -> Iterable[int]:
    """An endless trace of 0..count-1, the i-th as likely as 1 / (i + 1) ** exponent."""
    draw = random.Random(seed)
    weights = list(itertools.accumulate((i + 1) ** -exponent for i in range(count)))
    while True:
        yield from draw.choices(range(count), cum_weights=weights, k=1024)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` per cent of them do not exceed (nearest rank)."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


async def open_loop(send: Send[Item], items: Iterable[Item], schedule: Sequence[float]) -> list[float]:
    """Send an item at each time of `schedule`; seconds from the intended start to the answer, in order."""
    latencies = [0.0] * len(schedule)
    began = time.perf_counter()

    async def one(number: int, item: Item) -> None:
        await send(item)
        latencies[number] = time.perf_counter() - began - schedule[number]

    async with asyncio.TaskGroup() as tasks:
        for number, (at, item) in enumerate(zip(schedule, items, strict=False)):
            if (wait_s := began + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            tasks.create_task(one(number, item))
    return latencies


async def closed_loop(send: Send[Item], items: Iterable[Item], *, clients: int, seconds: float) -> float:
    """Requests per second of `clients` that start no request after `seconds`, or after the last item."""
    remaining, done = iter(items), 0
    began = time.perf_counter()

    async def client() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds and (item := next(remaining, None)) is not None:
            await send(item)
            done += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return done / (time.perf_counter() - began)
