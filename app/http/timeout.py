"""The budget that the caller's proxy sends as a header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.rewrite.deadline import TIMEOUT_HEADER, parse_timeout_header

if TYPE_CHECKING:
    from starlette.requests import Request

    from app.telemetry import Metrics


def header_ms(request: Request, metrics: Metrics) -> int | None:
    """Milliseconds of `x-envoy-expected-rq-timeout-ms`, None where absent; a malformed one is counted."""
    value = request.headers.get(TIMEOUT_HEADER)
    if value is None:
        return None
    try:
        return parse_timeout_header(value)
    except ValueError:
        metrics.ignored_headers.labels(TIMEOUT_HEADER).inc()
        return None
