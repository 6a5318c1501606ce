"""Work that nobody waits for: bounded, deduplicated, the oldest dropped first.

A near-line miss is put here and generated when there is room, so that the next time the query comes the
cache has it. What waited longest is let go first when the queue is full: its query is the least likely to
come again soon.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Work = Callable[[], Coroutine[Any, Any, object]]
K = TypeVar("K", bound="Hashable")


class NearlineQueue(Generic[K]):
    """Runs queued work, oldest first, at most `concurrency` at a time. Lives on one event loop.

    Args:
        max_queue: entries that may wait; one more drops the oldest. 0 queues nothing.
        concurrency: entries worked on at a time.
        on_drop: called for each entry that is let go unworked.
    """

    def __init__(
        self, *, max_queue: int, concurrency: int, on_drop: Callable[[], None] = lambda: None
    ) -> None:
        self._max_queue = max_queue
        self._concurrency = concurrency
        self._on_drop = on_drop
        # With the context of whoever has asked: what is told of the work is told of that request.
        self._waiting: OrderedDict[K, tuple[Work, Context]] = OrderedDict()
        self._running: dict[K, asyncio.Task[object]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, key: K, work: Work) -> bool:
        """Queue `work` unless `key` waits or runs already; whether it was queued."""
        if self._closed or key in self._waiting or key in self._running:
            return False
        self._waiting[key] = (work, copy_context())
        self._fill()
        if len(self._waiting) > self._max_queue:
            self._waiting.popitem(last=False)
            self._on_drop()
        return key in self._waiting or key in self._running

    async def close(self) -> None:
        """Let go of what waits and cancel what runs; returns when all has ended."""
        self._closed = True
        self._waiting.clear()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._concurrency and not self._closed:
            key, (work, context) = self._waiting.popitem(last=False)
            task = asyncio.create_task(work(), context=context)
            self._running[key] = task
            task.add_done_callback(partial(self._landed, key))

    def _landed(self, key: K, task: asyncio.Task[object]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # a failure nobody waits for is not "never retrieved"
        self._fill()
