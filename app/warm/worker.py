"""One query after another through the service, until the shared cache has each.

It is the service's own way from query to entry, under the same settings, so that what is warmed is what will
be looked up. Only patience differs: nobody waits, so nothing is given up that some seconds more would bring.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from app.contracts.reasons import Reason
from app.errors import CorewriteError
from app.main import create_app
from app.rewrite.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastapi import FastAPI

    from app.engines.base import Engine
    from app.http.schemas import RewriteRequest
    from app.registry.served import ServedCheckpoint
    from app.rewrite.answer import Answer, Query
    from app.rewrite.service import RewriteService
    from app.rewrite.shared_cache import SharedCache
    from app.settings import Settings

# Far beyond any generation; REWRITE_GENERATION_TIMEOUT_S ends the ones that hang.
DEADLINE_S = 3600.0
# A machine that is busy generating hears late what Redis said in time.
REDIS_TIMEOUT_MS = 2_000
# An engine or a Redis that is restarted, or left alone by its breaker, comes back.
TRIES = 3

Kind = Literal["already_there", "generated", "too_long", "failed"]
NOT_STORED = "not_stored"
_JUDGED = {None, Reason.LOW_CONFIDENCE, Reason.GUARD, Reason.NO_CHANGE}


class Outcome(NamedTuple):
    """What became of one query.

    `reason` of a generated one: why its entry holds no rewrite, "" where it holds one. Of a failed one: why.
    A query that is too long has no entry, needs none, and will have none.
    """

    kind: Kind
    reason: str = ""


class Warmer:
    """Sees to it that the shared cache has an entry for a query; `refresh` makes a new one in any case.

    Args:
        service: without a memory of its own (L1), so that a hit is one of the shared cache.
        shared: the shared cache of that service.
        refresh: generate what is there already, too.
        pause_s: seconds before an engine or a Redis that is unavailable is asked again.
    """

    def __init__(
        self, service: RewriteService, shared: SharedCache, *, refresh: bool, pause_s: float
    ) -> None:
        self._service = service
        self._shared = shared
        self._refresh = refresh
        self._pause_s = pause_s

    async def warm(self, request: RewriteRequest) -> Outcome:
        """Generate and store, unless it is there; return when the entry can be read back.

        Raises:
            CorewriteError: Redis takes no writes any more; going on would be for nothing.
        """
        query = replace(request.to_query(), client_id=None, mode="online")
        answer = await self._answer(query, fresh=self._refresh)
        if answer.cache == "hit":
            return Outcome("already_there")
        if answer.reason is Reason.INPUT_TOO_LONG:
            return Outcome("too_long")
        if answer.reason not in _JUDGED:
            return Outcome("failed", str(answer.reason))
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._pause_s)
                answer = await self._answer(query, fresh=True)
            # A write may be lost, and nobody is told: only reading is proof.
            await self._shared.flush()
            stored = await self._answer(query)
            if stored.cache == "hit" and (not self._refresh or _entry(stored) == _entry(answer)):
                return Outcome("generated", stored.reason or "")
        await self._shared.check()
        return Outcome("failed", NOT_STORED)

    async def warm_all(
        self,
        requests: Iterable[RewriteRequest],
        *,
        concurrency: int,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        """Warm every request, `concurrency` at a time. What was done stays done, however this ends.

        Raises:
            CorewriteError: as `warm`.
        """
        waiting = iter(requests)

        async def work() -> None:
            for request in waiting:
                on_outcome(await self.warm(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _answer(self, query: Query, *, fresh: bool = False) -> Answer:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._pause_s)
            deadline = Deadline(time.monotonic() + DEADLINE_S, "default")
            answer = await self._service.rewrite(query, deadline, patient=True, fresh=fresh)
            if answer.reason is not Reason.ENGINE_UNAVAILABLE:
                break
        return answer


def _entry(answer: Answer) -> tuple[object, ...]:
    return answer.rewrites, answer.reason, answer.drops, answer.checkpoint_id, answer.weights_digest


async def open_app(
    settings: Settings, *, engine: Engine | None = None, checkpoint: ServedCheckpoint | None = None
) -> FastAPI:
    """The service as `settings` have it, for warming, with a shared cache that takes writes. Not started.

    Raises:
        CorewriteError: there is no Redis, it takes no writes, or there is no checkpoint.
    """
    if settings.redis_url is None:
        raise CorewriteError(
            "there is nothing to fill: a cache in this process' memory would be lost with it. Set "
            "REWRITE_REDIS_URL to the Redis that the replicas use"
        )
    patient = {
        "enabled": True,  # filled before it is switched on, it is warm when it is
        "cache_entries": 0,
        "redis_timeout_ms": max(settings.redis_timeout_ms, REDIS_TIMEOUT_MS),
        "relevance": "none",  # which no rewrite needs
    }
    app = create_app(settings.model_copy(update=patient), engine=engine, checkpoint=checkpoint)
    try:
        await app.state.shared.check()
    except CorewriteError:
        await app.state.shared.close()
        raise
    return app


def warmer_of(app: FastAPI, settings: Settings, *, refresh: bool) -> Warmer:
    """The warmer over an app of `open_app`, once its lifespan has begun."""
    return Warmer(app.state.service, app.state.shared, refresh=refresh, pause_s=settings.breaker_open_s)
