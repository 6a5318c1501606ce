"""The parts of the request path that the settings ask for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from app.engines.breaker import Breaker
from app.rewrite.admission import Admission
from app.telemetry import bind

if TYPE_CHECKING:
    from app.rewrite.generator import Policy
    from app.rewrite.shared_cache import SharedCache
    from app.settings import Settings
    from app.telemetry import Metrics


def make_gates(settings: Settings, metrics: Metrics) -> tuple[Admission, Admission]:
    """Return admission of queries, and of whole batches."""
    batches = settings.max_batches
    return (
        _gate(settings, metrics, "rewrite", settings.max_inflight, settings.max_waiting),
        _gate(settings, metrics, "batch", batches, batches, max_wait_ms=settings.batch_deadline_ms),
    )


def make_signal_gate(settings: Settings, metrics: Metrics) -> Admission:
    """Return admission to /v1/signals."""
    return _gate(settings, metrics, "signals", settings.max_signals, settings.max_signals)


def _gate(
    settings: Settings,
    metrics: Metrics,
    name: str,
    max_inflight: int,
    max_waiting: int,
    *,
    max_wait_ms: int | None = None,
) -> Admission:
    gate = Admission(
        max_inflight=max_inflight,
        max_waiting=max_waiting,
        max_wait_s=(settings.max_wait_ms if max_wait_ms is None else max_wait_ms) / 1000,
        retry_after_s=settings.retry_after_s,
        on_shed=lambda cause: metrics.shed.labels(cause).inc(),
    )
    bind(metrics.inflight.labels(name), lambda: gate.inflight)
    bind(metrics.queue_depth.labels(name), lambda: gate.waiting)
    return gate


def make_shared_cache(
    settings: Settings, policy: Policy, metrics: Metrics, *, version: str
) -> SharedCache | None:
    """Return the cache that replicas share; None where there is none. `version` is that of this code."""
    if settings.redis_url is None:
        return None
    from app.rewrite.shared_cache import SharedCache  # noqa: PLC0415 -- loads redis

    # All that an entry is a function of and its key does not say. The engine is not: the weights are in it.
    judged_by = (
        version,
        settings.max_model_tokens,
        policy.min_confidence,
        policy.max_tokens,
        policy.limits,
    )
    return SharedCache(
        settings.redis_url.get_secret_value(),
        ttl_s=settings.cache_ttl_s,
        timeout_s=settings.redis_timeout_ms / 1000,
        scope=hashlib.sha256(repr(judged_by).encode()).hexdigest(),
        breaker=Breaker(max_failures=settings.breaker_max_failures, open_s=settings.breaker_open_s),
        on_result=lambda result: metrics.shared_cache.labels(result).inc(),
    )
