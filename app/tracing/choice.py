"""The tracer that the settings ask for, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import CorewriteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace.export import SpanExporter

    from app.telemetry import Metrics
    from app.tracing.settings import TracingSettings
    from app.tracing.tracer import Tracer


def make_tracer(
    settings: TracingSettings,
    metrics: Metrics,
    *,
    version: str,
    clock: Callable[[], float],
    exporter: SpanExporter | None = None,
) -> Tracer | None:
    """What sends traces to `exporter`, or to REWRITE_TRACES; None where there is neither.

    Raises:
        CorewriteError: OpenTelemetry is not installed.
    """
    if exporter is None and settings.traces is None:
        return None
    try:
        from app.tracing.tracer import Tracer  # noqa: PLC0415 -- loads OpenTelemetry's SDK

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 -- as above
                OTLPSpanExporter,
            )

            exporter = OTLPSpanExporter(endpoint=settings.traces)
    except ImportError as error:
        raise CorewriteError(f"REWRITE_TRACES needs corewrite[tracing]: {error}") from error
    return Tracer(exporter, version=version, metrics=metrics, clock=clock)
