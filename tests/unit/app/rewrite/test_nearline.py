from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from app.rewrite.nearline import NearlineQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Works:
    """Makes work that waits for `gate` and tells when it ran."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began: list[str] = []
        self.ended: list[str] = []

    def of(self, key: str, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            self.began.append(key)
            await self.gate.wait()
            if error:
                raise error
            self.ended.append(key)

        return work


def test_the_oldest_is_dropped_first_and_counted() -> None:
    async def scenario() -> None:
        works, drops = Works(), []
        queue: NearlineQueue[str] = NearlineQueue(max_queue=2, concurrency=1, on_drop=lambda: drops.append(1))
        assert all(queue.offer(key, works.of(key)) for key in "abcd")
        assert (len(queue), len(drops)) == (2, 1)  # a runs, b went
        works.gate.set()
        await asyncio.sleep(0.01)
        assert works.ended == ["a", "c", "d"]
        assert len(queue) == 0

    asyncio.run(scenario())


def test_a_key_is_queued_once_until_it_has_run() -> None:
    async def scenario() -> None:
        works = Works()
        queue: NearlineQueue[str] = NearlineQueue(max_queue=5, concurrency=1)
        assert [queue.offer(key, works.of(key)) for key in "aabb"] == [True, False, True, False]
        works.gate.set()
        await asyncio.sleep(0.01)
        assert works.ended == ["a", "b"]
        assert queue.offer("a", works.of("a"))

    asyncio.run(scenario())


def test_failures_are_nobodys_and_the_next_goes_on() -> None:
    async def scenario() -> None:
        works = Works()
        works.gate.set()
        queue: NearlineQueue[str] = NearlineQueue(max_queue=5, concurrency=1)
        queue.offer("a", works.of("a", RuntimeError("x")))
        queue.offer("b", works.of("b"))
        await asyncio.sleep(0.01)
        assert works.ended == ["b"]

    asyncio.run(scenario())


def test_without_room_nothing_is_queued() -> None:
    async def scenario() -> None:
        works = Works()
        queue: NearlineQueue[str] = NearlineQueue(max_queue=0, concurrency=1)
        assert queue.offer("a", works.of("a"))
        assert not queue.offer("b", works.of("b"))

    asyncio.run(scenario())


def test_closing_cancels_what_runs_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        works = Works()
        queue: NearlineQueue[str] = NearlineQueue(max_queue=5, concurrency=2)
        for key in "abc":
            queue.offer(key, works.of(key))
        await asyncio.sleep(0)
        await queue.close()
        assert works.began == ["a", "b"]
        assert not works.ended
        assert not queue.offer("d", works.of("d"))

    asyncio.run(scenario())


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(min_value=0, max_value=4), st.integers(1, 3))
def test_bounds_hold_and_everything_is_worked_or_dropped(keys: list[str], size: int, places: int) -> None:
    async def scenario() -> None:
        works, drops = Works(), []
        queue: NearlineQueue[str] = NearlineQueue(
            max_queue=size, concurrency=places, on_drop=lambda: drops.append(1)
        )
        taken = 0
        for key in keys:
            known = len(queue)
            taken += queue.offer(key, works.of(key))
            assert len(queue) <= size
            assert len(queue) >= known
        works.gate.set()
        await asyncio.sleep(0.01)
        assert len(works.began) == len(works.ended)
        # With size 0 what is dropped was never taken.
        assert len(works.ended) == taken - (len(drops) if size else 0)

    asyncio.run(scenario())


def test_work_is_told_of_whoever_has_asked() -> None:
    """Also what has waited, and is begun when that of another ends."""
    asker: ContextVar[str] = ContextVar("asker")

    async def scenario() -> None:
        gate, done, told = asyncio.Event(), asyncio.Event(), []
        queue: NearlineQueue[str] = NearlineQueue(max_queue=5, concurrency=1)

        async def work() -> None:
            await gate.wait()
            told.append(asker.get())
            if len(told) == len("abc"):
                done.set()

        for name in "abc":
            asker.set(name)
            queue.offer(name, work)
        asker.set("nobody")
        gate.set()
        await done.wait()
        assert told == ["a", "b", "c"]

    asyncio.run(scenario())
