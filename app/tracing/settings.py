"""The settings of traces. How they are sent is for the variables of OpenTelemetry's SDK, `OTEL_*`."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from app.credentials import PublicUrl


class TracingSettings(BaseSettings):
    """A part of `app.settings.Settings`."""

    traces: PublicUrl | None = Field(
        default=None,
        description=(
            "URL of a collector that takes OTLP over HTTP, such as `http://collector:4318`; `/v1/traces` is "
            "added where it has no path. Needs corewrite[tracing]. OpenTelemetry's own variables say the "
            "rest (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`, ...). "
            "Unset: no traces, whatever `OTEL_*` says, for clusters set those for everything that runs there."
        ),
    )
    traces_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "Share of the requests without `traceparent` of which a trace begins here. With one, its sampled "
            "flag decides. 0: sampling is the caller's decision."
        ),
    )

    @field_validator("traces")
    @classmethod
    def _is_a_place(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(
                "must be the http:// or https:// URL of a collector, such as http://collector:4318"
            )
        return url if parts.path.strip("/") else parts._replace(path="/v1/traces").geturl()
