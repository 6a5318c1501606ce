"""From trails to OpenTelemetry's spans, sent in batches by a thread of its own. Imports OpenTelemetry's SDK.

The SDK's queue is bounded and lets go of the oldest: a collector that is slow or dead costs spans and nothing
else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from app.telemetry import LOGGER
from app.tracing.declared import LOGGED
from app.tracing.trail import Span, Trail

if TYPE_CHECKING:
    from app.http.trace import Trace
    from app.telemetry import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_SERVER_ERROR = 500
# What is left at the end may take so long; then it is lost.
_FLUSH_S = 2.0


class Tracer:
    """Begins trails and sends what they have become. Lives on one event loop.

    Args:
        exporter: where batches go.
        version: of the service.
        metrics: count spans.
        clock: the service's.
    """

    def __init__(
        self, exporter: SpanExporter, *, version: str, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._recorded = metrics.spans.labels("recorded")
        self._processor = BatchSpanProcessor(_Counting(exporter, metrics))
        # In this order: what the environment says of the service is the deployment's word.
        ours = Resource({"service.name": "corewrite", "service.version": version})
        self._ids = _GivenIds()
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not sampled has no trail
            resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("corewrite", version)

    def begin(self, trace: Trace, arrived_s: float) -> Trail:
        """The trail of a request that is sampled and arrived in this moment."""
        return Trail(trace, arrived_s=arrived_s, arrived_ns=time.time_ns(), send=self._send)

    def end(
        self, trail: Trail, scope: Mapping[str, Any], path: str, status: int, log: Mapping[str, Any]
    ) -> None:
        """Send the spans of a request that was answered.

        Args:
            trail: of the request.
            scope: ASGI's.
            path: as logs have it.
            status: of the answer.
            log: fields of the log line.
        """
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        route = getattr(scope.get("route"), "path", None)
        found: dict[str, Any] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status or None,  # 0: the caller left before there was one
            "url.path": path,
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
            "error.type": str(status) if status >= _SERVER_ERROR else None,
            **{LOGGED[name]: value for name, value in log.items() if name in LOGGED},
        }
        if scope.get("server"):
            found["server.address"], found["server.port"] = scope["server"]
        attributes = {name: value for name, value in found.items() if value is not None}
        own = trail.root(f"{method} {route}" if route else method, self._clock(), attributes)
        self._send(own, SpanKind.SERVER, failed=status >= _SERVER_ERROR)
        for span in trail.spans:
            self._send(span)

    async def close(self) -> None:
        """Send what is left, within a bound."""
        # The SDK would wait for half a minute. A daemon may be left behind; a pool's thread is waited for.
        sending = threading.Thread(target=self._processor.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, _FLUSH_S)

    def _send(self, span: Span, kind: SpanKind = SpanKind.INTERNAL, *, failed: bool = False) -> None:
        self._recorded.inc()
        self._ids.take(span)
        parent = Context()
        if span.parent_id is not None:
            remote = kind is SpanKind.SERVER
            parent = set_span_in_context(
                NonRecordingSpan(_context(span.trace_id, span.parent_id, remote=remote)), parent
            )
        begun = self._tracer.start_span(
            span.name,
            context=parent,
            kind=kind,
            attributes=span.attributes,
            links=[Link(_context(*span.link))] if span.link else None,
            start_time=span.started_ns,
        )
        if failed:
            begun.set_status(Status(StatusCode.ERROR))
        begun.end(span.ended_ns)


class _GivenIds(IdGenerator):
    """Ids that requests have already, in headers and logs."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 0

    def take(self, span: Span) -> None:
        """Make the next span have the ids of this one."""
        self._trace_id, self._span_id = int(span.trace_id, 16), int(span.span_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id


class _Counting(SpanExporter):
    """Counts what another exporter does, and says once that it fails, and once that it works again."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._spans = metrics.spans
        self._failing = False
        # Told here instead, once: it has a line for each try.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 -- whatever an exporter raises, the next batch may be taken
            LOGGER.debug("exporting spans failed", exc_info=error)
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        self._spans.labels("failed" if failed else "exported").inc(len(spans))
        if failed != self._failing:
            self._failing = failed
            if failed:
                LOGGER.warning("spans are lost: the collector does not take them")
            else:
                LOGGER.info("the collector takes spans again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))
