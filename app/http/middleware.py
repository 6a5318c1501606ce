"""What happens around every request: its arrival is timed, its trace carried, one log line written.

Pure ASGI: it adds one header to the answer and touches no body.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from app.http.trace import continue_trace, new_trace
from app.telemetry import LOGGER, TRACE
from app.tracing.trail import TRAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.telemetry import Metrics
    from app.tracing.tracer import Tracer

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked for every few seconds by machines; their lines at info level would drown what people asked for."""
_MAX_PATH_CHARS = 128


def _nothing(_tokens: int) -> None:
    """Take no tokens: there is no limit."""


class Exchange:
    """One request and its answer, as far as log and metrics care; at `scope["corewrite"]`."""

    __slots__ = ("arrived_s", "log", "metrics", "spend")

    def __init__(self, arrived_s: float, metrics: Metrics) -> None:
        self.arrived_s = arrived_s
        self.metrics = metrics
        self.log: dict[str, object] = {}
        self.spend: Callable[[int], None] = _nothing  # tokens of the client's, where its rate is limited


class RequestMiddleware:
    """Trace, time and log each HTTP request.

    Args:
        app: what answers.
        metrics: count headers that are ignored.
        tracer: takes the spans of requests that are sampled; None: nobody does.
        traces_ratio: share of those without a `traceparent` that are.
        clock: the service's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        tracer: Tracer | None = None,
        traces_ratio: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracer = tracer
        self._traces_ratio = traces_ratio if tracer else 0.0
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope["corewrite"] = Exchange(self._clock(), self._metrics)
        header = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        trace = continue_trace(header.decode("latin-1")) if header is not None else None
        if trace is None:
            if header is not None:
                self._metrics.ignored_headers.labels("traceparent").inc()
            quiet = scope["path"] in PROBES
            trace = new_trace(sampled_ratio=0.0 if quiet else self._traces_ratio)
        token = TRACE.set((trace.trace_id, trace.span_id))
        tracer = self._tracer if trace.sampled else None
        trail = tracer.begin(trace, exchange.arrived_s) if tracer else None
        trail_token = TRAIL.set(trail) if trail else None
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"traceparent", trace.traceparent.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        except BaseException:
            status = status or 500  # answered outside of us, by the last handler of all
            raise
        finally:
            path = scope["path"][:_MAX_PATH_CHARS]
            if tracer and trail:
                tracer.end(trail, scope, path, status, exchange.log)
            level = logging.DEBUG if path in PROBES else logging.INFO
            if LOGGER.isEnabledFor(level):
                fields = {
                    "method": scope["method"],
                    "path": path,
                    "status": status,
                    "duration_ms": round((self._clock() - exchange.arrived_s) * 1000, 3),
                    **exchange.log,
                }
                LOGGER.log(level, "request", extra={"fields": fields})
            if trail_token:
                TRAIL.reset(trail_token)
            TRACE.reset(token)
