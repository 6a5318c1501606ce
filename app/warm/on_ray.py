"""Warming on Ray Data: each actor has an engine and a connection to Redis of its own.

Nothing of the result travels through Ray but what became of each query: the entries go straight from the
actor that made them to the shared cache. A cluster needs corewrite installed on its nodes, the checkpoint at
the same path, and a way to the Redis.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import CorewriteError
from app.http.body import parse_rewrite
from app.warm.worker import Outcome, Warmer, open_app, warmer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.http.schemas import RewriteRequest
    from app.settings import Settings

# Requests that an actor is given at a time: it is idle for the end of each, so not few; and the last actor
# works alone on its last, so not many.
BATCH = 128
STOPPED = "stopped"
# Enough for queries; Ray's own choice is a third of the machine's memory.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
# Read by Ray when it is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side writes advice to standard error
}


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


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing that this process writes to its standard error is seen; exceptions are as ever."""
    # Told by its variable to be quiet, Ray's C++ side says aloud that it was told so.
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)


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
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 -- takes seconds, and who does not ask for it need not install it
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise CorewriteError("--engine ray needs the package ray: install corewrite[ray]") from error
    # An actor's engine takes the cores that Ray thinks it takes.
    threads = settings.engine_threads or 1
    settings = settings.model_copy(update={"engine_threads": threads})
    here: dict[str, Any] = {
        "num_cpus": workers * threads,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    try:
        with _hushed():
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else here),
            )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        gpus = workers if settings.engine == "vllm" else 0
        resources: Callable[[], dict[str, float]] = ray.cluster_resources
        if resources().get("GPU", 0) < gpus:
            raise CorewriteError(f"{workers} workers on vLLM take {gpus} GPUs, and Ray sees fewer")
        batches = _batches(requests, workers)
        done = ray.data.from_items(batches, override_num_blocks=len(batches)).map_batches(
            Actor,
            fn_constructor_kwargs={
                "settings": settings,
                "refresh": refresh,
                "concurrency": concurrency,
            },
            batch_size=1,
            concurrency=min(workers, len(batches)),
            num_cpus=threads,
            num_gpus=1 if gpus else 0,
        )
        for row in done.iter_rows():
            if row["kind"] == STOPPED:
                raise CorewriteError(row["reason"])
            on_outcome(Outcome(row["kind"], row["reason"]))
    finally:
        ray.shutdown()
