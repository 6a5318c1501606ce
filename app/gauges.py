"""Gauges of what serves: read when they are scraped, so that keeping them costs a request nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

from app.engines.breaker import BreakerState
from app.telemetry import bind

if TYPE_CHECKING:
    from app.engines.supervised import SupervisedEngine
    from app.rewrite.cache import LruCache
    from app.rewrite.lineup import Lineup, Serving
    from app.rewrite.nearline import NearlineQueue
    from app.rewrite.single_flight import SingleFlight
    from app.telemetry import Metrics


class _Stats(Protocol):
    running: int
    waiting: int


@runtime_checkable
class _HasStats(Protocol):
    """An engine that counts what it holds."""

    def stats(self) -> _Stats: ...


def show_checkpoint(metrics: Metrics, old: Serving | None, new: Serving) -> None:
    """Say which checkpoint serves from now on."""
    if old is not None:
        metrics.checkpoint.remove(old.checkpoint.id, old.checkpoint.weights_digest)
    metrics.checkpoint.labels(new.checkpoint.id, new.checkpoint.weights_digest).set(1)


def bind_request_path(
    metrics: Metrics,
    *,
    cache: LruCache[Any, Any],
    flights: SingleFlight[Any, Any],
    nearline: NearlineQueue[Any],
) -> None:
    """Gauges of what a request passes through."""
    for gauge, value in (
        (metrics.nearline_backlog, lambda: len(nearline)),
        (metrics.cache_entries, lambda: len(cache)),
        (metrics.background, lambda: flights.background),
    ):
        bind(gauge, value)


def bind_engine(metrics: Metrics, lineup: Lineup) -> None:
    """Gauges of the engine that serves when they are read."""
    if held(lineup.current.engine):
        for state in ("running", "waiting"):
            bind(
                metrics.engine_requests.labels(state),
                lambda state=state: held(lineup.current.engine).get(state, 0),  # type: ignore[misc]
            )
    for state in get_args(BreakerState):
        bind(
            metrics.engine_breaker.labels(state),
            lambda state=state: lineup.current.engine.breaker.state == state,  # type: ignore[misc]
        )


def held(engine: SupervisedEngine) -> dict[str, int]:
    """How many requests the engine runs and has waiting, where it counts them."""
    if not isinstance(engine.inner, _HasStats):
        return {}
    stats = engine.inner.stats()
    return {"running": stats.running, "waiting": stats.waiting}
