"""Warming on Ray Data: each actor has an engine and a connection to Redis of its own.

Nothing of the result travels through Ray but what became of each query: the entries go straight from the
actor that made them to the shared cache. A cluster needs a way to the Redis.
"""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.errors import CorewriteError
from app.http.body import parse_rewrite
from app.ray_actors import Workers, run_on_actors
from app.warm.worker import Outcome, Warmer, open_app, warmer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.http.schemas import RewriteRequest
    from app.settings import Settings

# Requests that an actor is given at a time: it is idle for the end of each, so not few; and the last actor
# works alone on its last, so not many.
BATCH = 128
STOPPED = "stopped"


class Actor:
    """A service on an event loop of its own, for as long as the process lives."""

    def __init__(self, settings: Settings, *, refresh: bool, concurrency: int) -> None:
        self._settings = settings
        self._refresh = refresh
        self._concurrency = concurrency
        self._warmer: Warmer | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Warm the requests in the column `requests` (JSON Lines); what became of each, in any order.

        An error that should end the run is a row too, of the kind STOPPED: it comes through Ray as one line.
        """
        requests = [parse_rewrite(line.encode()) for text in batch["requests"] for line in text.split("\n")]
        outcomes: list[tuple[str, str]] = []
        try:
            asyncio.run_coroutine_threadsafe(self._warm(requests, outcomes.append), self._loop).result()
        except CorewriteError as error:
            outcomes.append((STOPPED, str(error)))
        kinds, reasons = zip(*outcomes, strict=True)
        return {"kind": np.array(kinds), "reason": np.array(reasons)}

    async def _warm(self, requests: list[RewriteRequest], on_outcome: Callable[[Outcome], None]) -> None:
        if self._warmer is None:
            app = await open_app(self._settings)
            # Never left: Ray ends an actor by ending its process, when all it wrote was seen to be stored.
            self._lifespan = app.router.lifespan_context(app)
            await self._lifespan.__aenter__()
            self._warmer = warmer_of(app, self._settings, refresh=self._refresh)
        await self._warmer.warm_all(requests, concurrency=self._concurrency, on_outcome=on_outcome)


def _batches(requests: Sequence[RewriteRequest], workers: int) -> list[dict[str, str]]:
    """One row of JSON Lines per call of an actor: Ray cuts and joins rows as it sees fit, but not within."""
    size = min(BATCH, math.ceil(len(requests) / workers))
    lines = [request.model_dump_json(exclude_defaults=True) for request in requests]
    return [
        {"requests": "\n".join(batch)}
        for batch in (lines[at : at + size] for at in range(0, len(lines), size))
    ]


def warm_on_ray(
    requests: Sequence[RewriteRequest],
    settings: Settings,
    *,
    refresh: bool,
    workers: int,
    concurrency: int,
    address: str | None,
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Warm every request on `workers` actors, of the cluster at `address` or of one for this call alone.

    Raises:
        CorewriteError: Ray is missing or cannot start.
    """
    # An actor's engine takes the cores that Ray thinks it takes.
    threads = settings.engine_threads or 1
    arguments = {
        "settings": settings.model_copy(update={"engine_threads": threads}),
        "refresh": refresh,
        "concurrency": concurrency,
    }

    def on_row(row: dict[str, Any]) -> None:
        if row["kind"] == STOPPED:
            raise CorewriteError(row["reason"])
        on_outcome(Outcome(row["kind"], row["reason"]))

    gpus: Literal["all", "none"] = "all" if settings.engine == "vllm" else "none"
    run_on_actors(
        Actor,
        arguments,
        _batches(requests, workers),
        Workers(workers, threads, gpus, address),
        on_row,
    )
