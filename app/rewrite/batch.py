"""Many queries in one request, in order, without crowding out single ones.

All batches together work on at most `concurrency` items at a time; each item then passes admission like a
single request. Batch places and item places are different resources, always taken in this order, so a full
house of batches cannot wait for itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.rewrite.admission import Admission
    from app.rewrite.answer import Answer, Query
    from app.rewrite.deadline import Deadline
    from app.rewrite.service import RewriteService

E = TypeVar("E")


class BatchRewriter:
    """Runs batches over the service; `admission` counts whole batches, not items."""

    def __init__(
        self,
        service: RewriteService,
        *,
        admission: Admission,
        concurrency: int,
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._admission = admission
        self._places = asyncio.Semaphore(concurrency)
        self._clock = clock

    async def rewrite(
        self, items: Sequence[tuple[Query, Deadline] | E], *, budget_s: float
    ) -> list[Answer | E]:
        """Answers in the order of `items`; what is no query (an error) is handed back in its place.

        `budget_s` is the time the whole batch may wait to be let in.

        Raises:
            OverloadedError, DrainingError: the whole batch is shed before any work.
        """
        if not await self._admission.enter(budget_s=budget_s):
            return [self._service.expired(item[0]) if isinstance(item, tuple) else item for item in items]
        try:
            return list(await asyncio.gather(*(self._one(item) for item in items)))
        finally:
            self._admission.leave()

    async def _one(self, item: tuple[Query, Deadline] | E) -> Answer | E:
        if not isinstance(item, tuple):
            return item
        query, deadline = item
        try:
            async with asyncio.timeout(deadline.remaining_s(self._clock())):
                await self._places.acquire()
        except TimeoutError:
            return self._service.expired(query)
        try:
            return await self._service.rewrite(query, deadline, patient=True)
        finally:
            self._places.release()
