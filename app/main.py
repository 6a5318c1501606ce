"""create_app: the one place where parts are wired together."""

from __future__ import annotations

import os
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol, get_args, runtime_checkable

from fastapi import FastAPI

from app.engines.breaker import Breaker, BreakerState
from app.engines.supervised import SupervisedEngine
from app.errors import CheckpointError, CorewriteError
from app.http import openapi
from app.http.errors import install_error_handlers
from app.http.lifecycle import Lifecycle
from app.http.middleware import RequestMiddleware
from app.http.routes import Handlers, install_routes
from app.rewrite.admission import Admission
from app.rewrite.batch import BatchRewriter
from app.rewrite.cache import LruCache
from app.rewrite.generator import Generator, Key, Policy, ServedCheckpoint
from app.rewrite.guard import Limits
from app.rewrite.nearline import NearlineQueue
from app.rewrite.service import RewriteService
from app.rewrite.single_flight import SingleFlight
from app.telemetry import LOGGER, Metrics, QueryFingerprint, bind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from app.contracts.reasons import Reason
    from app.engines.base import Engine
    from app.rewrite.admission import ShedCause
    from app.rewrite.answer import Judged
    from app.settings import Settings

_DESCRIPTION = (
    "Rewrites search queries from their context. Every answer carries the original query untouched; "
    "a rewrite is a signal beside it, never a replacement."
)


class _Stats(Protocol):
    running: int
    waiting: int


@runtime_checkable
class _HasStats(Protocol):
    """An engine that counts what it holds."""

    def stats(self) -> _Stats: ...


def create_app(
    settings: Settings, *, engine: Engine | None = None, checkpoint: ServedCheckpoint | None = None
) -> FastAPI:
    """The service as an ASGI app.

    Its lifespan starts the engine and, in reverse order, undoes whatever was started. `engine` and
    `checkpoint` replace the ones that the settings name, for other engines and for tests.

    Raises:
        CheckpointError: the checkpoint cannot be used, or its weights are not the engine's.
    """
    if checkpoint is None:
        checkpoint = _load_checkpoint(settings)
    clock = time.monotonic
    metrics = Metrics()
    engine = _supervised(settings, checkpoint, engine, metrics)
    if engine.weights_digest != checkpoint.weights_digest:
        raise CheckpointError("the engine has other weights than the checkpoint names")

    metrics.checkpoint.labels(checkpoint.id, checkpoint.weights_digest).set(1)

    admission, batch_admission = _gates(settings, metrics)
    cache: LruCache[Key, Judged] = LruCache(
        max_entries=settings.cache_entries, ttl_s=settings.cache_ttl_s, clock=clock
    )
    flights: SingleFlight[Key, Judged | Reason] = SingleFlight(max_background=settings.max_background)
    nearline: NearlineQueue[Key] = NearlineQueue(
        max_queue=settings.nearline_max_queue,
        concurrency=settings.nearline_concurrency,
        on_drop=metrics.nearline.labels("dropped").inc,
    )
    bind(metrics.nearline_backlog, lambda: len(nearline))
    bind(metrics.queue_depth, lambda: admission.waiting)
    bind(metrics.inflight, lambda: admission.inflight)
    bind(metrics.cache_entries, lambda: len(cache))
    bind(metrics.background, lambda: flights.background)
    if _counts(engine):
        bind(metrics.engine_requests.labels("running"), lambda: _counts(engine)["running"])
        bind(metrics.engine_requests.labels("waiting"), lambda: _counts(engine)["waiting"])

    policy = Policy(
        enabled=settings.enabled,
        mode=settings.mode,
        beam_width=settings.beam_width,
        max_tokens=settings.max_tokens,
        min_confidence=settings.min_confidence,
        generation_timeout_s=settings.generation_timeout_s,
        limits=Limits(max_chars=settings.max_rewrite_chars, max_ratio=settings.max_rewrite_ratio),
    )
    service = RewriteService(
        generator=Generator(
            engine=engine, checkpoint=checkpoint, cache=cache, metrics=metrics, policy=policy, clock=clock
        ),
        checkpoint=checkpoint,
        admission=admission,
        cache=cache,
        flights=flights,
        nearline=nearline,
        metrics=metrics,
        policy=policy,
        clock=clock,
    )
    batches = BatchRewriter(
        service, admission=batch_admission, concurrency=settings.batch_concurrency, clock=clock
    )
    lifecycle = Lifecycle(
        (batch_admission, admission), grace_s=settings.drain_grace_s, timeout_s=settings.drain_timeout_s
    )

    def readiness() -> tuple[bool, dict[str, object]]:
        return lifecycle.status == "ready", {
            "status": lifecycle.status,
            "checkpoint": {"id": checkpoint.id, "weights_digest": checkpoint.weights_digest},
            "engine": _counts(engine),
        }

    app = FastAPI(
        title="corewrite",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=_lifespan(engine, (flights.close, nearline.close), lifecycle),
        redirect_slashes=False,  # a redirected POST is a second request under the same deadline
        redoc_url=None,
    )
    app.state.service = service
    app.state.lifecycle = lifecycle
    app.state.metrics = metrics
    app.state.startup_error = None
    key = settings.log_hash_key
    install_routes(
        app,
        Handlers(
            settings=settings,
            service=service,
            batches=batches,
            metrics=metrics,
            fingerprint=QueryFingerprint(
                key=key.get_secret_value() if key else None, raw=settings.log_queries
            ),
            readiness=readiness,
        ),
    )
    install_error_handlers(app)
    openapi.install(app)
    app.add_middleware(RequestMiddleware, metrics=metrics, clock=clock)
    return app


def _gates(settings: Settings, metrics: Metrics) -> tuple[Admission, Admission]:
    """Admission of queries, and of whole batches."""

    def on_shed(cause: ShedCause) -> None:
        metrics.shed.labels(cause).inc()

    queries = Admission(
        max_inflight=settings.max_inflight,
        max_waiting=settings.max_waiting,
        max_wait_s=settings.max_wait_ms / 1000,
        retry_after_s=settings.retry_after_s,
        on_shed=on_shed,
    )
    batches = Admission(
        max_inflight=settings.max_batches,
        max_waiting=settings.max_batches,
        max_wait_s=settings.batch_deadline_ms / 1000,
        retry_after_s=settings.retry_after_s,
        on_shed=on_shed,
    )
    return queries, batches


def _lifespan(
    engine: Engine, closing: Sequence[Callable[[], Awaitable[object]]], lifecycle: Lifecycle
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Start on the way in; on the way out run the clean-ups pushed so far, last first.

    `closing` are those of what needs no start.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clean_ups: list[Callable[[], Awaitable[object]]] = [engine.close]
        try:
            await engine.start()
            clean_ups.extend(closing)
            lifecycle.status = "ready"
            LOGGER.info("ready")
            yield
        except CorewriteError as error:
            app.state.startup_error = error
            raise
        finally:
            lifecycle.status = "draining"
            for clean_up in reversed(clean_ups):
                await clean_up()
            LOGGER.info("stopped")

    return lifespan


def _load_checkpoint(settings: Settings) -> ServedCheckpoint:
    from app.registry.checkpoint import load_checkpoint  # noqa: PLC0415 -- only where no other is handed in

    return load_checkpoint(settings.checkpoint)


def _supervised(
    settings: Settings, checkpoint: ServedCheckpoint, engine: Engine | None, metrics: Metrics
) -> SupervisedEngine:
    """The engine of the settings, or the one handed in, under supervision."""

    def make() -> Engine:
        if engine is not None:
            return engine
        of_kind = {"embedded": _embedded_engine, "vllm": _vllm_engine}[settings.engine]
        return of_kind(settings, checkpoint)

    breaker = Breaker(max_failures=settings.breaker_max_failures, open_s=settings.breaker_open_s)
    for state in get_args(BreakerState):
        bind(metrics.engine_breaker.labels(state), partial(_is_in, breaker, state))
    return SupervisedEngine(
        make,
        breaker=breaker,
        timeout_s=settings.generation_timeout_s,
        on_restart=metrics.engine_restarts.inc,
    )


def _is_in(breaker: Breaker, state: BreakerState) -> bool:
    return breaker.state == state


def _counts(engine: SupervisedEngine) -> dict[str, int]:
    """What the engine holds, where it counts it."""
    if not isinstance(engine.inner, _HasStats):
        return {}
    stats = engine.inner.stats()
    return {"running": stats.running, "waiting": stats.waiting}


def _embedded_engine(settings: Settings, checkpoint: ServedCheckpoint) -> Engine:
    # Here, because they load ONNX Runtime, which other engines do without.
    from app.engines.embedded import EmbeddedEngine  # noqa: PLC0415
    from app.engines.qwen3_files import read_config  # noqa: PLC0415

    window = read_config(settings.checkpoint).max_position_embeddings
    return EmbeddedEngine(
        settings.checkpoint,
        weights_digest=checkpoint.weights_digest,
        threads=settings.engine_threads or len(os.sched_getaffinity(0)),
        max_batch=settings.engine_max_batch,
        max_queue=settings.engine_max_queue,
        max_model_tokens=settings.max_model_tokens or window,
        beam_width=settings.beam_width,
    )


def _vllm_engine(settings: Settings, checkpoint: ServedCheckpoint) -> Engine:
    from app.engines.qwen3_files import read_config  # noqa: PLC0415
    from app.engines.vllm import VllmEngine  # noqa: PLC0415

    return VllmEngine(
        settings.checkpoint,
        weights_digest=checkpoint.weights_digest,
        max_model_tokens=settings.max_model_tokens
        or read_config(settings.checkpoint).max_position_embeddings,
        beam_width=settings.beam_width,
        arguments=settings.vllm_arguments,
    )


def _version() -> str:
    try:
        return version("corewrite")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
