"""Every metric and every log field of the service, declared once.

`docs/metrics.md` is written by `python -m app.reference metrics`; a test fails when the two disagree.
Units are in the names. Label values come from closed sets: no client can grow the number of time series.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from app.contracts.reasons import STAGE_REASONS, Drop, Reason
from app.rollout.assignment import Arm

LOGGER = logging.getLogger("corewrite")

# trace_id and span_id of the request this task works for; set by the HTTP middleware.
TRACE: ContextVar[tuple[str, str] | None] = ContextVar("trace", default=None)

_STAGE_REASONS = ("none", *Reason)
_REASONS = tuple(reason for reason in _STAGE_REASONS if reason not in STAGE_REASONS)
# Dense where an engine on two cores answers (10 to 200 ms), down to 0.1 ms for cache hits.
_PHASE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: its full name, what it counts, and the closed set of each label's values."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: Mapping[str, tuple[str, ...] | str]


_GATES = ("rewrite", "batch", "signals")

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "counter",
        "corewrite_requests_total",
        "Queries answered or refused; each item of a batch counts.",
        {"outcome": ("rewritten", "degraded", "invalid", "shed", "failed"), "reason": _REASONS},
    ),
    MetricSpec(
        "histogram",
        "corewrite_phase_seconds",
        "Seconds per phase of an answered query; engine and guard only where the cache had no entry.",
        {"phase": ("queue", "cache", "engine", "guard", "total")},
    ),
    MetricSpec(
        "gauge",
        "corewrite_queue_depth",
        "Requests waiting for admission; rewrite: queries, those of batches and of signals too.",
        {"gate": _GATES},
    ),
    MetricSpec(
        "gauge",
        "corewrite_inflight_requests",
        "Requests admitted and not answered yet; rewrite: queries, those of batches and of signals too.",
        {"gate": _GATES},
    ),
    MetricSpec(
        "counter",
        "corewrite_cache_requests_total",
        "Look-ups of the L1 cache.",
        {"result": ("hit", "miss")},
    ),
    MetricSpec("gauge", "corewrite_cache_entries", "Entries of the L1 cache.", {}),
    MetricSpec(
        "counter",
        "corewrite_shared_cache_total",
        "Look-ups of the L2 cache, and its writes that failed; skipped: not tried, because it kept failing.",
        {"result": ("hit", "miss", "error", "skipped")},
    ),
    MetricSpec(
        "counter",
        "corewrite_singleflight_shared_total",
        "Queries that waited for a generation another query had started.",
        {},
    ),
    MetricSpec(
        "gauge", "corewrite_background_generations", "Generations going on with nobody waiting for them.", {}
    ),
    MetricSpec(
        "counter",
        "corewrite_nearline_total",
        "Near-line misses: queued, known (queued or in flight already), and dropped from a full queue.",
        {"result": ("queued", "known", "dropped")},
    ),
    MetricSpec("gauge", "corewrite_nearline_backlog", "Near-line generations that wait.", {}),
    MetricSpec(
        "counter",
        "corewrite_guard_drops_total",
        "Completions dropped by the guard, once per generation.",
        {"drop": tuple(Drop)},
    ),
    MetricSpec(
        "counter",
        "corewrite_engine_tokens_total",
        "Tokens read and written by the engine, over all completions.",
        {"kind": ("prompt", "completion")},
    ),
    MetricSpec(
        "gauge",
        "corewrite_engine_requests",
        "Requests inside the engine, where it counts them.",
        {"state": ("running", "waiting")},
    ),
    MetricSpec(
        "gauge",
        "corewrite_engine_breaker",
        "1 for the state of the engine's circuit breaker, 0 for the others.",
        {"state": ("closed", "half_open", "open")},
    ),
    MetricSpec(
        "counter", "corewrite_engine_restarts_total", "Engines that were started again after one died.", {}
    ),
    MetricSpec(
        "counter",
        "corewrite_engine_errors_total",
        "Generations that failed, background ones included.",
        {"reason": (Reason.ENGINE_ERROR, Reason.ENGINE_UNAVAILABLE, Reason.INPUT_TOO_LONG)},
    ),
    MetricSpec(
        "counter",
        "corewrite_stages_total",
        "Stages of signals, by what came of them; neutral: the stage goes on with the original alone.",
        {
            "stage": ("recall", "rawrank", "finerank"),
            "outcome": ("signal", "neutral"),
            "reason": _STAGE_REASONS,
        },
    ),
    MetricSpec(
        "histogram",
        "corewrite_stage_seconds",
        "Seconds per stage of signals: until the relevance model had answered, and what fusion took then.",
        {"stage": ("recall", "rawrank", "finerank"), "phase": ("model", "fusion")},
    ),
    MetricSpec(
        "gauge",
        "corewrite_remembered_searches",
        "Searches whose answer is kept for their later stages.",
        {},
    ),
    MetricSpec(
        "counter",
        "corewrite_shed_total",
        "Requests refused before any work; a batch counts once.",
        {"cause": ("queue_full", "queue_timeout", "draining", "rate_limited")},
    ),
    MetricSpec(
        "counter",
        "corewrite_refused_connections_total",
        "Connections ended because of what came, or did not come, on them; too_many: over the limit.",
        {
            "cause": (
                *("malformed", "url_too_long", "head_too_large", "too_slow", "too_many", "not_reading"),
                "pipelined",
            )
        },
    ),
    MetricSpec(
        "counter",
        "corewrite_refused_tokens_total",
        "Requests without the bearer token that they need; blocked: not looked at after many wrong ones.",
        {"cause": ("missing", "wrong", "blocked")},
    ),
    MetricSpec(
        "counter",
        "corewrite_ignored_headers_total",
        "Malformed request headers that were ignored.",
        {"header": ("x-envoy-expected-rq-timeout-ms", "traceparent")},
    ),
    MetricSpec(
        "counter",
        "corewrite_activations_total",
        "Attempts to activate a checkpoint, by what became of them.",
        {"mechanism": ("beside", "in_place"), "outcome": ("activated", "refused")},
    ),
    MetricSpec(
        "gauge",
        "corewrite_checkpoint_info",
        "Always 1; the labels say which checkpoint serves.",
        {"id": "the checkpoint's id", "digest": "SHA-256 of its weights"},
    ),
    MetricSpec(
        "counter",
        "corewrite_arm_requests_total",
        "Queries by the arm of their client.",
        {"arm": get_args(Arm)},
    ),
    MetricSpec(
        "gauge",
        "corewrite_canary_ratio",
        "Share of the clients (0..1) that have the canary here.",
        {},
    ),
    MetricSpec(
        "gauge", "corewrite_canary_loaded", "1 while a checkpoint is loaded for the canary's clients.", {}
    ),
    MetricSpec(
        "gauge",
        "corewrite_promoted_missing",
        "1 while what was promoted is not loaded here, so that clients of stable have something else.",
        {},
    ),
    MetricSpec(
        "gauge",
        "corewrite_killed",
        "1 while everybody gets the original, whoever has asked for it.",
        {},
    ),
    MetricSpec(
        "gauge", "corewrite_rollout_store_up", "1 while the store of rollouts can be reached, else 0.", {}
    ),
    MetricSpec(
        "counter",
        "corewrite_rollout_decisions_total",
        "Looks at the rollout by a process that may decide; none also where it is another one's turn.",
        {"result": ("none", "moved", "failed")},
    ),
    MetricSpec(
        "counter",
        "corewrite_spans_total",
        "Spans of traces: recorded, and what became of them; the rest waits, or was let go.",
        {"result": ("recorded", "exported", "failed")},
    ),
    MetricSpec(
        "counter",
        "corewrite_events_total",
        "Events, by what became of them; known: they had come before, and are accepted too.",
        {"result": ("accepted", "known", "ignored", "unknown", "invalid")},
    ),
)

LOG_FIELDS: Mapping[str, str] = {
    "time": "RFC 3339, UTC, milliseconds",
    "level": "debug, info, warning or error",
    "event": "what happened, in a few words that do not vary",
    "trace_id": "W3C trace id, 32 hex digits",
    "span_id": "span of this service, 16 hex digits",
    "method": "HTTP method",
    "path": "path of the request, cut at 128 characters; never its query string",
    "status": "HTTP status",
    "duration_ms": "milliseconds from when the head was there to the last byte of the answer",
    "query_hash": "first 12 hex digits of the query's SHA-256, keyed by REWRITE_LOG_HASH_KEY where set",
    "query_chars": "length of the query in characters",
    "query": "the raw query; only with REWRITE_LOG_QUERIES",
    "num_rewrites": "rewrites in the answer",
    "reason": "why there are none; the word of body, header and metric",
    "reasons": "batch: answers per reason",
    "cache": "hit, shared, miss or none",
    "deadline_by": "who set the deadline: body, header or default",
    "arm": "stable, canary or holdout",
    "items": "batch: number of items",
    "events": "events: number of valid ones",
    "unknown": "events: how many belong to no search that is known",
    "client": "refusals: who asked, by REWRITE_CLIENT_HEADER or address",
    "candidates": "signals: number of candidates",
    "stages": "signals: why each stage is neutral, null where it is not",
    "remembered": "signals: whether an earlier call of the query_id had the answer made",
    "error": "wire word of the error that was answered",
    "detail": "batch, start and stop: what is worth knowing, in words of the program",
    "exception": "type of an unexpected exception; its message only with REWRITE_LOG_QUERIES, it may quote",
    "frames": "where it was raised, innermost last, as file:line function",
}


class Metrics:
    """The metrics above in a registry of their own, so that several apps may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("corewrite_requests_total")
        self.phases = self._histogram("corewrite_phase_seconds")
        self.queue_depth = self._gauge("corewrite_queue_depth")
        self.inflight = self._gauge("corewrite_inflight_requests")
        self.cache_requests = self._counter("corewrite_cache_requests_total")
        self.cache_entries = self._gauge("corewrite_cache_entries")
        self.shared = self._counter("corewrite_singleflight_shared_total")
        self.background = self._gauge("corewrite_background_generations")
        self.nearline = self._counter("corewrite_nearline_total")
        self.nearline_backlog = self._gauge("corewrite_nearline_backlog")
        self.guard_drops = self._counter("corewrite_guard_drops_total")
        self.engine_tokens = self._counter("corewrite_engine_tokens_total")
        self.engine_requests = self._gauge("corewrite_engine_requests")
        self.engine_breaker = self._gauge("corewrite_engine_breaker")
        self.engine_restarts = self._counter("corewrite_engine_restarts_total")
        self.engine_errors = self._counter("corewrite_engine_errors_total")
        self.shared_cache = self._counter("corewrite_shared_cache_total")
        self.activations = self._counter("corewrite_activations_total")
        self.stages = self._counter("corewrite_stages_total")
        self.stage_seconds = self._histogram("corewrite_stage_seconds")
        self.remembered = self._gauge("corewrite_remembered_searches")
        self.shed = self._counter("corewrite_shed_total")
        self.refused_connections = self._counter("corewrite_refused_connections_total")
        self.refused_tokens = self._counter("corewrite_refused_tokens_total")
        self.ignored_headers = self._counter("corewrite_ignored_headers_total")
        self.checkpoint = self._gauge("corewrite_checkpoint_info")
        self.arms = self._counter("corewrite_arm_requests_total")
        self.canary_ratio = self._gauge("corewrite_canary_ratio")
        self.canary_loaded = self._gauge("corewrite_canary_loaded")
        self.promoted_missing = self._gauge("corewrite_promoted_missing")
        self.killed = self._gauge("corewrite_killed")
        self.rollout_store = self._gauge("corewrite_rollout_store_up")
        self.decisions = self._counter("corewrite_rollout_decisions_total")
        self.events = self._counter("corewrite_events_total")
        self.spans = self._counter("corewrite_spans_total")
        # Bound once: finding a child by its labels costs more than counting.
        spec = _spec("corewrite_phase_seconds").labels["phase"]
        self.phase_seconds = {phase: self.phases.labels(phase) for phase in spec}
        self.cache_hit = self.cache_requests.labels("hit")
        self.cache_miss = self.cache_requests.labels("miss")
        self._outcomes: dict[tuple[str, str], Counter] = {}

    def count_request(self, outcome: str, reason: str = "none") -> None:
        """Count one query by what became of it."""
        child = self._outcomes.get((outcome, reason))
        if child is None:
            child = self._outcomes[outcome, reason] = self.requests.labels(outcome, reason)
        child.inc()

    def _counter(self, name: str) -> Counter:
        spec = _spec(name)
        return Counter(name.removesuffix("_total"), spec.help, tuple(spec.labels), registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        spec = _spec(name)
        return Gauge(name, spec.help, tuple(spec.labels), registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        spec = _spec(name)
        return Histogram(name, spec.help, tuple(spec.labels), registry=self.registry, buckets=_PHASE_BUCKETS)


def _spec(name: str) -> MetricSpec:
    return next(spec for spec in METRICS if spec.name == name)


def bind(gauge: Gauge, read: Callable[[], float]) -> None:
    """Read a gauge when it is scraped, so that keeping it costs a request nothing."""
    gauge.set_function(read)
