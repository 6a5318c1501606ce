"""create_app: the one place where parts are wired together."""

from __future__ import annotations

import time
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.datastructures import State

from app.console.threads import Threads
from app.engines.choice import supervised_engine
from app.errors import CheckpointError
from app.gauges import bind_engine, bind_request_path, held, show_checkpoint
from app.http import openapi
from app.http.admin import AdminHandlers, install_admin_routes
from app.http.bearer import bearers
from app.http.client import ClientNames
from app.http.errors import install_error_handlers
from app.http.events import EventHandlers, install_event_routes
from app.http.lifecycle import Lifecycle, lifespan
from app.http.limiting import install_rate_limit
from app.http.middleware import RequestMiddleware
from app.http.routes import Handlers, install_routes
from app.http.signals import SignalHandlers, install_signal_routes
from app.logs import QueryFingerprint
from app.relevance.choice import make_relevance
from app.rewrite.activation import Activator
from app.rewrite.admission import Admission
from app.rewrite.batch import BatchRewriter
from app.rewrite.cache import LruCache
from app.rewrite.choice import make_gates, make_shared_cache, make_signal_gate
from app.rewrite.generator import Generator, Key, Policy
from app.rewrite.guard import Limits
from app.rewrite.lineup import Lineup, Lineups, Serving
from app.rewrite.nearline import NearlineQueue
from app.rewrite.service import RewriteService
from app.rewrite.single_flight import SingleFlight
from app.rollout.counter import counted
from app.rollout.traffic import NOTHING_DEPLOYED, Traffic, dealing
from app.signals.heads import Heads
from app.signals.runner import StageRunner, Weights
from app.signals.service import SignalService
from app.telemetry import Metrics, bind
from app.tracing.choice import make_tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace.export import SpanExporter

    from app.contracts.reasons import Reason
    from app.engines.base import Engine
    from app.http.bearer import Bearer
    from app.registry.served import ServedCheckpoint
    from app.relevance.base import Relevance
    from app.rewrite.answer import Answer, Judged
    from app.rollout.replica import RolloutReplica
    from app.settings import Settings
    from app.signals.service import Search

_DESCRIPTION = (
    "Rewrites search queries from their context. Every answer carries the original query untouched; "
    "a rewrite is a signal beside it, never a replacement."
)
# FastAPI's own, which a variable would switch on, quotes what clients send. Ours is app/tracing.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    checkpoint: ServedCheckpoint | None = None,
    relevance: Relevance | None = None,
    spans: SpanExporter | None = None,
) -> FastAPI:
    """The service as an ASGI app.

    Its lifespan starts the engine and, in reverse order, undoes whatever was started. `engine`, `checkpoint`,
    `relevance` and `spans` replace the ones that the settings name, for other engines and for tests.

    Raises:
        CheckpointError: the checkpoint cannot be used, or its weights are not the engine's.
        CorewriteError: what a setting asks for is not installed.
    """
    if checkpoint is None:
        checkpoint = _load_checkpoint(settings)
    clock = time.monotonic
    metrics = Metrics()
    engine_for = partial(supervised_engine, settings, instead=engine, on_restart=metrics.engine_restarts.inc)
    serving = Serving(checkpoint, engine_for(checkpoint))
    if serving.engine.weights_digest != checkpoint.weights_digest:
        raise CheckpointError("the engine has other weights than the checkpoint names")
    lineup = Lineup(serving, on_switch=partial(show_checkpoint, metrics))
    show_checkpoint(metrics, None, serving)
    activator = Activator(
        lineup,
        load=partial(_find_checkpoint, settings),
        engine_for=engine_for,
        on_outcome=lambda mechanism, outcome: metrics.activations.labels(mechanism, outcome).inc(),
        timeout_s=settings.activation_timeout_s,
    )

    admission, batch_admission = make_gates(settings, metrics)
    cache: LruCache[Key, Judged] = LruCache(
        max_entries=settings.cache_entries, ttl_s=settings.cache_ttl_s, clock=clock
    )
    flights: SingleFlight[Key, Judged | Reason] = SingleFlight(max_background=settings.max_background)
    nearline: NearlineQueue[Key] = NearlineQueue(
        max_queue=settings.nearline_max_queue,
        concurrency=settings.nearline_concurrency,
        on_drop=metrics.nearline.labels("dropped").inc,
    )
    bind_request_path(metrics, cache=cache, flights=flights, nearline=nearline)
    bind_engine(metrics, lineup)

    policy = Policy(
        enabled=settings.enabled,
        mode=settings.mode,
        beam_width=settings.beam_width,
        max_tokens=settings.max_tokens,
        min_confidence=settings.min_confidence,
        generation_timeout_s=settings.generation_timeout_s,
        limits=Limits(max_chars=settings.max_rewrite_chars, max_ratio=settings.max_rewrite_ratio),
    )
    shared = make_shared_cache(settings, policy, metrics, version=_version())
    dealt = partial(
        dealing,
        salt=settings.assignment_salt,
        holdout_ratio=settings.holdout_ratio,
        stable_stages=settings.stable_stages,
    )
    lineups, traffic = Lineups(lineup), Traffic(dealt(NOTHING_DEPLOYED))
    rollouts = _rollouts(
        settings, lineups=lineups, traffic=traffic, dealt=dealt, engine_for=engine_for, metrics=metrics
    )
    count = partial(counted, rollouts.counter) if rollouts else _uncounted
    service = RewriteService(
        generator=Generator(cache=cache, shared=shared, metrics=metrics, policy=policy, clock=clock),
        lineups=lineups,
        traffic=traffic,
        shared=shared,
        admission=admission,
        cache=cache,
        flights=flights,
        nearline=nearline,
        metrics=metrics,
        policy=policy,
        clock=clock,
    )
    own_relevance = make_relevance(settings) if relevance is None else None
    signal_admission = make_signal_gate(settings, metrics)
    heads, console_threads = Heads(relevance or own_relevance, clock=clock), Threads()
    signals = _signals(
        settings,
        rewrites=service,
        heads=heads,
        traffic=traffic,
        admission=signal_admission,
        metrics=metrics,
        clock=clock,
    )
    lifecycle = Lifecycle(
        (signal_admission, batch_admission, admission),
        grace_s=settings.drain_grace_s,
        timeout_s=settings.drain_timeout_s,
    )

    def readiness() -> tuple[bool, dict[str, object]]:
        return lifecycle.status == "ready", {
            "status": lifecycle.status,
            "checkpoint": {
                "id": lineup.current.checkpoint.id,
                "weights_digest": lineup.current.checkpoint.weights_digest,
            },
            "engine": held(lineup.current.engine),
            "rollouts": rollouts and rollouts.readiness(),
        }

    tracer = make_tracer(settings, metrics, version=_version(), clock=clock, exporter=spans)
    # The last to be closed comes first: what goes on until then has spans.
    closing = [part.close for part in (tracer, shared, own_relevance, console_threads) if part is not None]
    app = FastAPI(
        title="corewrite",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan(
            lineup,
            (*closing, flights.close, nearline.close, activator.close),
            lifecycle,
            starting=(rollouts,) if rollouts else (),
        ),
        redirect_slashes=False,  # a redirected POST is a second request under the same deadline
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    app.state = State(
        {
            "service": service,
            "signals": signals,
            "lineup": lineup,
            "activator": activator,
            "shared": shared,
            "rollouts": rollouts,
            "lifecycle": lifecycle,
            "metrics": metrics,
            "startup_error": None,
        }
    )
    fingerprint, clients = _fingerprint(settings), ClientNames(settings.client_header)
    bearer, reporter = bearers(settings, clients=clients, metrics=metrics, clock=clock)
    install_routes(
        app,
        Handlers(
            settings=settings,
            service=service,
            batches=BatchRewriter(
                service, admission=batch_admission, concurrency=settings.batch_concurrency, clock=clock
            ),
            metrics=metrics,
            fingerprint=fingerprint,
            readiness=readiness,
            counted=count,
            bearer=bearer,
        ),
    )
    install_signal_routes(
        app,
        SignalHandlers(
            settings=settings,
            service=signals,
            metrics=metrics,
            fingerprint=fingerprint,
            counted=count,
            bearer=bearer,
        ),
    )
    _install_admin(
        app,
        settings=settings,
        bearer=bearer,
        reporter=reporter,
        activator=activator,
        rollouts=rollouts,
        traffic=traffic,
        metrics=metrics,
    )
    _install_console(
        app,
        settings,
        bearer=bearer,
        signals=signals,
        heads=heads,
        lineups=lineups,
        traffic=traffic,
        rollouts=rollouts,
        threads=console_threads,
        metrics=metrics,
        fingerprint=fingerprint,
        clock=clock,
        version=_version(),
    )
    install_error_handlers(app)
    openapi.install(app)
    install_rate_limit(app, settings, clients=clients, clock=clock)
    app.add_middleware(
        RequestMiddleware, metrics=metrics, tracer=tracer, traces_ratio=settings.traces_ratio, clock=clock
    )
    return app


def _signals(
    settings: Settings,
    *,
    rewrites: RewriteService,
    heads: Heads,
    traffic: Traffic,
    admission: Admission,
    metrics: Metrics,
    clock: Callable[[], float],
) -> SignalService:
    memory: LruCache[Search, Answer] = LruCache(
        max_entries=settings.signal_memory_entries, ttl_s=settings.signal_memory_s, clock=clock
    )
    bind(metrics.remembered, lambda: len(memory))
    weights = Weights(
        rawrank=settings.rawrank_weight, finerank=settings.finerank_weight, max_factor=settings.max_factor
    )
    return SignalService(
        rewrites=rewrites,
        runner=StageRunner(heads, weights=weights, metrics=metrics, clock=clock),
        admission=admission,
        memory=memory,
        traffic=traffic,
        clock=clock,
    )


def _fingerprint(settings: Settings) -> QueryFingerprint:
    key = settings.log_hash_key
    return QueryFingerprint(key=key.get_secret_value() if key else None, raw=settings.log_queries)


def _rollouts(settings: Settings, **parts: Any) -> RolloutReplica | None:
    if settings.rollouts is None:
        return None
    from app.rollout.choice import make_rollouts  # noqa: PLC0415 -- loads SQLAlchemy

    return make_rollouts(settings, **parts)


def _install_admin(
    app: FastAPI,
    *,
    settings: Settings,
    bearer: Bearer,
    reporter: Bearer,
    activator: Activator,
    rollouts: RolloutReplica | None,
    traffic: Traffic,
    metrics: Metrics,
) -> None:
    timeout_s = settings.body_timeout_s
    install_admin_routes(app, AdminHandlers(bearer=bearer, activator=activator, body_timeout_s=timeout_s))
    if rollouts is None:
        return
    install_event_routes(
        app,
        EventHandlers(settings=settings, counter=rollouts.counter, metrics=metrics, bearer=reporter),
    )
    if bearer.token is not None:
        from app.http.rollouts import (  # noqa: PLC0415 -- loads SQLAlchemy
            RolloutHandlers,
            install_rollout_routes,
        )

        handlers = RolloutHandlers(
            bearer=bearer, orders=rollouts.orders, traffic=traffic, body_timeout_s=timeout_s
        )
        install_rollout_routes(app, handlers)


def _install_console(app: FastAPI, settings: Settings, **parts: Any) -> None:
    if not settings.console:
        return
    from app.console.routes import install_console  # noqa: PLC0415 -- loads Jinja, for those who want it
    from app.console.wiring import make_console  # noqa: PLC0415 -- as above

    install_console(app, make_console(settings, **parts))


def _uncounted(answer: Answer) -> Answer:
    return answer


def _load_checkpoint(settings: Settings) -> ServedCheckpoint:
    from app.registry.checkpoint import load_checkpoint  # noqa: PLC0415 -- only where no other is handed in

    return load_checkpoint(settings.checkpoint, signers=settings.signers)


def _find_checkpoint(settings: Settings, checkpoint_id: str) -> ServedCheckpoint:
    from app.registry.checkpoint import find_checkpoint  # noqa: PLC0415 -- as above

    folder = settings.checkpoints or settings.checkpoint.parent
    return find_checkpoint(folder, checkpoint_id, signers=settings.signers)


@cache
def _version() -> str:
    try:
        return version("corewrite")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
