"""Counting in a replica: once, acknowledged when it is kept, and nothing lost that the store was late for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
import pytest

from app.errors import OverloadedError, StoreError
from app.rewrite.cache import LruCache
from app.rollout import counter as module
from app.rollout.counter import Counter, Event, Taken
from app.rollout.evidence import MEASURES, Cell
from app.rollout.statistics import Floats

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
KEY = b"k" * 32
HERE, ELSEWHERE = Cell(1, 0, impacted=True, bucket=7), Cell(1, 0, impacted=False, bucket=8)


class FakeCounts:
    """Adds up, knows events by their id, and fails while it is told to."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.flushes = 0
        self.events: dict[str, tuple[Cell, Floats]] = {}
        self.sums: dict[Cell, Floats] = {}

    def take(
        self, events: Mapping[str, tuple[Cell, Floats]], counts: Mapping[Cell, Floats], at: datetime
    ) -> int:
        assert at == NOW
        if self.down is not None:
            raise self.down
        self.flushes += 1
        new = {event: what for event, what in events.items() if event not in self.events}
        self.events |= new
        for cell, values in [*counts.items(), *new.values()]:
            self.sums[cell] = self.sums.get(cell, np.zeros(len(MEASURES))) + values
        return len(events) - len(new)

    def of(self, cell: Cell) -> dict[str, float]:
        values = self.sums.get(cell, np.zeros(len(MEASURES)))
        return {name: value for name, value in zip(MEASURES, values.tolist(), strict=True) if value}


def counter_of(store: FakeCounts, known: list[int] | None = None, flush_s: float = 0.001) -> Counter:
    ticks = count()
    memory: LruCache[str, Cell] = LruCache(max_entries=10, ttl_s=1000.0, clock=lambda: float(next(ticks)))
    return Counter(
        store,
        key=KEY,
        memory=memory,
        now=lambda: NOW,
        flush_s=flush_s,
        on_known=(known if known is not None else []).append,
    )


class Stopwatch(asyncio.SelectorEventLoop):
    """A loop on which time passes only while everybody waits for it, or as somebody says."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._select, self._selector.select = self._selector.select, self._jump

    def time(self) -> float:
        return self.seconds

    def _jump(self, timeout: float | None = None) -> list[Any]:
        self.seconds += timeout or 0.0
        return self._select(timeout and 0.0)


@pytest.mark.parametrize(
    ("takes", "begun"),
    [(0.0, [0.5, 1.0, 1.5, 2.0]), (0.375, [0.5, 1.0, 1.5, 2.0]), (0.75, [0.5, 1.25, 2.0, 2.75])],
)
def test_it_flushes_twice_in_an_interval_however_long_a_flush_takes(takes: float, begun: list[float]) -> None:
    """So a crash loses one interval of searches at most: a half that waits, and one that is under way."""
    moments: list[float] = []

    class Slow(FakeCounts):
        def take(self, *args: Any, **options: Any) -> int:
            moments.append(loop.seconds)
            loop.call_soon_threadsafe(search)
            loop.seconds += takes
            return super().take(*args, **options)

    async def work() -> None:
        running = asyncio.create_task(counter.run())
        search()
        await enough.wait()
        running.cancel()

    def search() -> None:
        counter.saw(HERE, f"q{len(moments)}", fallback=False, seconds=0.25)
        if len(moments) == len(begun):
            enough.set()

    enough, counter = asyncio.Event(), counter_of(Slow(), flush_s=1.0)
    loop = Stopwatch()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
    assert moments == begun


def test_a_search_is_counted_once_whatever_calls_it_has() -> None:
    store = FakeCounts()

    async def work() -> None:
        counter = counter_of(store)
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.25)
        assert counter.saw(ELSEWHERE, "q1", fallback=True, seconds=9.0) == token
        counter.saw(HERE, "q2", fallback=True, seconds=0.5)
        counter.saw(ELSEWHERE, "q3", fallback=False, seconds=0.125)
        await counter.flush()

    asyncio.run(work())
    assert store.of(HERE) == {"searches": 2.0, "fallback": 1.0, "latency_s": 0.75}
    assert store.of(ELSEWHERE) == {"searches": 1.0, "latency_s": 0.125}


def test_events_count_where_their_search_does() -> None:
    """By their token in any replica; without one where the search was answered."""
    store = FakeCounts()

    async def work() -> tuple[Taken, Taken]:
        here, elsewhere = counter_of(store), counter_of(store)
        token = here.saw(HERE, "q1", fallback=False, seconds=0.0)
        events = [
            Event("e1", "q1", "clicks", token),
            Event("e2", "q1", "strict"),
            Event("e3", "q1", None, token),
            Event("e4", "q2", "changed", token),
        ]
        told = [asyncio.create_task(one.take(events)) for one in (here, elsewhere)]
        await asyncio.sleep(0)
        await asyncio.gather(here.flush(), elsewhere.flush())
        return await told[0], await told[1]

    here, elsewhere = asyncio.run(work())
    assert here == Taken(accepted=2, ignored=1, unknown=1)
    assert elsewhere == Taken(accepted=1, ignored=1, unknown=2)
    assert store.of(HERE) == {"searches": 1.0, "clicks": 1.0, "strict": 1.0}


def test_an_event_that_comes_again_counts_once() -> None:
    store = FakeCounts()
    known: list[int] = []

    async def work() -> None:
        counter = counter_of(store, known)
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.0)
        for _ in range(3):
            events = [Event("e1", "q1", "clicks", token)] * 2
            told = asyncio.create_task(counter.take(events))
            await asyncio.sleep(0)
            await counter.flush()
            assert (await told).accepted == 2

    asyncio.run(work())
    assert store.of(HERE)["clicks"] == 1.0
    assert known == [0, 1, 1]


@pytest.mark.parametrize("error", [StoreError("out of reach"), MemoryError("out of reach")], ids=type)
def test_what_the_store_is_late_for_is_not_lost(error: Exception) -> None:
    """Searches wait; events are refused, and count once when they come again."""
    store = FakeCounts()

    async def work() -> None:
        counter = counter_of(store)
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.5)
        store.down = error
        told = asyncio.create_task(counter.take([Event("e1", "q1", "clicks", token)]))
        await asyncio.sleep(0)
        await counter.flush()
        with pytest.raises(StoreError, match="out of reach"):
            await told
        counter.saw(HERE, "q2", fallback=False, seconds=0.5)
        await counter.flush()
        store.down = None
        told = asyncio.create_task(counter.take([Event("e1", "q1", "clicks", token)]))
        await asyncio.sleep(0)
        await counter.close()
        await told

    asyncio.run(work())
    assert store.of(HERE) == {"searches": 2.0, "latency_s": 1.0, "clicks": 1.0}


def test_it_flushes_by_itself_and_only_what_there_is() -> None:
    store = FakeCounts()

    async def work() -> None:
        counter = counter_of(store)
        running = asyncio.create_task(counter.run())
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.0)
        assert await counter.take([Event("e1", "q1", "changed", token)]) == Taken(accepted=1)
        await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(work())
    assert store.flushes == 1
    assert store.of(HERE) == {"searches": 1.0, "changed": 1.0}


def test_more_events_than_fit_are_refused_before_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 2)
    store = FakeCounts()

    async def work() -> None:
        counter = counter_of(store)
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.0)
        events = [Event(f"e{number}", "q1", "clicks", token) for number in range(3)]
        with pytest.raises(OverloadedError):
            await counter.take(events)
        told = asyncio.create_task(counter.take(events[:2]))
        await asyncio.sleep(0)
        await counter.flush()
        await told

    asyncio.run(work())
    assert store.of(HERE)["clicks"] == 2.0


def test_one_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    store = FakeCounts()

    async def work() -> None:
        counter = counter_of(store)
        token = counter.saw(HERE, "q1", fallback=False, seconds=0.0)
        gone, patient = (
            asyncio.create_task(counter.take([Event(name, "q1", "clicks", token)])) for name in ("e1", "e2")
        )
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        await counter.flush()
        await patient

    asyncio.run(work())
    assert store.of(HERE)["clicks"] == 2.0
