from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.rewrite.single_flight import FlightCancelledError, SingleFlight


class Work:
    """Counts its starts, ends when told to."""

    def __init__(self, result: Any = "done") -> None:
        self.starts = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.result = result

    async def __call__(self) -> Any:
        self.starts += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_equal_keys_share_one_computation() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=1), Work()
        waiters = [asyncio.create_task(flights.run("k", work, timeout_s=5)) for _ in range(10)]
        await asyncio.sleep(0)
        assert flights.in_flight("k")
        work.go.set()
        assert await asyncio.gather(*waiters) == ["done"] * 10
        assert work.starts == 1
        await asyncio.sleep(0)
        assert len(flights) == 0

    asyncio.run(scenario())


def test_each_waiter_has_its_own_time() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=1), Work()
        leader = asyncio.create_task(flights.run("k", work, timeout_s=0.01))
        follower = asyncio.create_task(flights.run("k", work, timeout_s=5))
        assert await leader is None
        assert flights.background == 0, "somebody still waits"
        work.go.set()
        assert await follower == "done"

    asyncio.run(scenario())


def test_a_cancelled_waiter_leaves_the_others_waiting() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=0), Work()
        leader = asyncio.create_task(flights.run("k", work, timeout_s=5))
        follower = asyncio.create_task(flights.run("k", work, timeout_s=5))
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert work.cancelled == 0
        work.go.set()
        assert await follower == "done"

    asyncio.run(scenario())


def test_the_last_to_leave_sends_the_flight_to_the_background_and_a_newcomer_takes_it_back() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=1), Work()
        assert await flights.run("k", work, timeout_s=0) is None
        assert flights.background == 1
        newcomer = asyncio.create_task(flights.run("k", work, timeout_s=5))
        await asyncio.sleep(0)
        assert flights.background == 0
        work.go.set()
        assert await newcomer == "done"
        assert work.starts == 1

    asyncio.run(scenario())


def test_beyond_the_bound_a_flight_is_cancelled_and_the_next_request_starts_afresh() -> None:
    async def scenario() -> None:
        flights = SingleFlight[str, str](max_background=1)
        first, second, again = Work(), Work(), Work()
        assert await flights.run("a", first, timeout_s=0.01) is None
        assert await flights.run("b", second, timeout_s=0.01) is None
        assert flights.background == 1
        await asyncio.sleep(0.01)
        assert (first.cancelled, second.cancelled) == (0, 1)
        again.go.set()
        assert await flights.run("b", again, timeout_s=5) == "done"
        first.go.set()
        await asyncio.sleep(0.01)
        assert flights.background == 0
        assert len(flights) == 0

    asyncio.run(scenario())


def test_a_failure_reaches_every_waiter_and_nobody_else() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=1), Work(ValueError("no"))
        work.go.set()
        results = await asyncio.gather(
            *(flights.run("k", work, timeout_s=5) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [ValueError] * 3
        assert await flights.run("k2", work, timeout_s=0) is None
        await asyncio.sleep(0.01)  # a background failure must not be reported as never retrieved

    asyncio.run(scenario())


def test_close_ends_what_flies_and_tells_the_waiters() -> None:
    async def scenario() -> None:
        flights, work = SingleFlight[str, str](max_background=1), Work()
        waiter = asyncio.create_task(flights.run("k", work, timeout_s=5))
        await asyncio.sleep(0)
        await flights.close()
        with pytest.raises(FlightCancelledError):
            await waiter
        assert len(flights) == 0

    asyncio.run(scenario())
