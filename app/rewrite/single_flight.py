"""One computation for equal keys in flight, each waiter with its own deadline.

A flight belongs to no request: a client that leaves, is cancelled or runs out of time leaves the others
waiting as before. When the last waiter has left, the flight goes on in the background, within a bound;
beyond the bound it is cancelled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class FlightCancelledError(Exception):
    """The flight was cancelled under its waiters: the owner closes, or the work cancelled itself."""


class _Flight(Generic[V]):
    __slots__ = ("background", "task", "waiters")

    def __init__(self, task: asyncio.Task[V]) -> None:
        self.task = task
        self.waiters = 0
        self.background = False


class SingleFlight(Generic[K, V]):
    """Runs `work` once per key at a time; at most `max_background` flights without a waiter."""

    def __init__(self, *, max_background: int) -> None:
        self._max_background = max_background
        self._flights: dict[K, _Flight[V]] = {}
        self.background = 0

    def __len__(self) -> int:
        return len(self._flights)

    def in_flight(self, key: K) -> bool:
        """Whether a call of `run` with this key would join a flight rather than start one."""
        return key in self._flights

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]], *, timeout_s: float) -> V | None:
        """The result of the flight for `key`, or None when `timeout_s` seconds ran out first.

        With a timeout of 0 the flight is started (or joined) and left at once.

        Raises:
            FlightCancelledError: the flight was cancelled; this waiter was not.
            Exception: whatever `work` raised, for every waiter.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, work)
        self._enter(flight)
        try:
            if timeout_s > 0:
                await asyncio.wait((flight.task,), timeout=timeout_s)
        finally:
            self._leave(key, flight)
        task = flight.task
        if not task.done():
            return None
        if task.cancelled():
            raise FlightCancelledError
        return task.result()

    async def close(self) -> None:
        """Cancel every flight and wait until all have ended."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> _Flight[V]:
        flight = _Flight(asyncio.create_task(work()))
        self._flights[key] = flight

        def landed(task: asyncio.Task[V]) -> None:
            self._forget(key, flight)
            if flight.background:
                flight.background = False
                self.background -= 1
            if not task.cancelled():
                task.exception()  # a failure nobody waits for is not "never retrieved"

        flight.task.add_done_callback(landed)
        return flight

    def _enter(self, flight: _Flight[V]) -> None:
        flight.waiters += 1
        if flight.background:
            flight.background = False
            self.background -= 1

    def _leave(self, key: K, flight: _Flight[V]) -> None:
        flight.waiters -= 1
        if flight.waiters or flight.task.done():
            return
        if self.background < self._max_background:
            flight.background = True
            self.background += 1
        else:
            # Forgotten at once, so that the next request starts afresh instead of joining a dying flight.
            self._forget(key, flight)
            flight.task.cancel()

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
