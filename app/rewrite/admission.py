"""Admission: at most so many requests at work, at most so many waiting, and nobody waits for long.

Shedding happens here, before any work was done for the request, so that a client may retry elsewhere at no
cost to anyone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal

from app.errors import DrainingError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

ShedCause = Literal["queue_full", "queue_timeout", "draining"]


class Admission:
    """A first-come-first-served gate. Call `enter`, then `leave` exactly once if it returned True.

    Args:
        max_inflight: requests between `enter` and `leave`.
        max_waiting: requests waiting in `enter`.
        max_wait_s: seconds a request waits before it is shed.
        retry_after_s: seconds told to a shed client.
        on_shed: called with the cause of each shed request.
    """

    def __init__(
        self,
        *,
        max_inflight: int,
        max_waiting: int,
        max_wait_s: float,
        retry_after_s: int = 1,
        on_shed: Callable[[ShedCause], None] = lambda _cause: None,
    ) -> None:
        self._max_inflight = max_inflight
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._retry_after_s = retry_after_s
        self._on_shed = on_shed
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self.inflight = 0
        self.draining = False

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return len(self._waiters)

    @property
    def has_room(self) -> bool:
        """Whether the next request would enter without waiting."""
        return self.inflight < self._max_inflight and not self._waiters

    def check_open(self) -> None:
        """Do nothing unless draining; raises DrainingError then."""
        if self.draining:
            self._on_shed("draining")
            raise DrainingError("shutting down; retry elsewhere", retry_after_s=self._retry_after_s)

    async def enter(self, *, budget_s: float, patient: bool = False) -> bool:
        """Wait for a place; False when the request's own `budget_s` ran out while it waited.

        `patient` is for the items of an admitted batch: their number is bounded already and their batch was
        let in, so neither a full queue, nor the longest wait, nor draining sheds them.

        Raises:
            OverloadedError: the queue is full, or `max_wait_s` passed before the budget did.
            DrainingError: no new work is taken any more.
        """
        if not patient:
            self.check_open()
        if self.has_room:
            self._begin()
            return True
        if patient:
            return await self._wait(budget_s)
        if len(self._waiters) >= self._max_waiting:
            self._on_shed("queue_full")
            raise OverloadedError("too many requests are waiting", retry_after_s=self._retry_after_s)
        if await self._wait(min(budget_s, self._max_wait_s)):
            return True
        if budget_s <= self._max_wait_s:
            return False
        self._on_shed("queue_timeout")
        raise OverloadedError("waited too long for admission", retry_after_s=self._retry_after_s)

    def leave(self) -> None:
        """Give the place to the first waiter, or back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the place is handed over: `inflight` stays
                return
        self.inflight -= 1
        if self.inflight == 0:
            self._idle.set()

    def drain(self) -> None:
        """From now on take nothing new; what waits already is still served."""
        self.draining = True

    async def wait_idle(self) -> None:
        """Return when nothing is in flight."""
        await self._idle.wait()

    def _begin(self) -> None:
        self.inflight += 1
        self._idle.clear()

    async def _wait(self, timeout_s: float) -> bool:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        except asyncio.CancelledError:
            if waiter.done():
                self.leave()  # the place came together with the cancellation: hand it on
            else:
                self._waiters.remove(waiter)
            raise
        if waiter.done():
            return True
        self._waiters.remove(waiter)
        return False
