"""The settings of the HTTP edge: where it listens, what it takes, how it leaves."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class HttpSettings(BaseSettings):
    """A part of `app.settings.Settings`."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Loopback, because a sidecar is called by its own pod only.",
    )
    port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes a free one. 8080 needs no privileges.",
    )
    admin_token: SecretStr | None = Field(
        default=None,
        description=(
            "Bearer token of the routes under /admin, which change what is served. Unset: they are refused "
            "to everybody, because behind a proxy every caller comes from loopback."
        ),
    )
    max_body_bytes: int = Field(
        default=262_144,
        ge=1024,
        description=(
            "Bytes of one request body; more is 413. 256 KiB: every valid request fits with each character "
            "escaped, and a 100 kB query still gets the 422 that names the field."
        ),
    )
    max_batch_body_bytes: int = Field(
        default=8_388_608,
        ge=1024,
        description="Bytes of one batch body; more is 413. 8 MiB: 256 items of 32 KiB.",
    )
    body_timeout_s: float = Field(
        default=5.0,
        gt=0,
        description="Seconds a client may take to send its body; then 408. 5: a slow mobile link needs 1.",
    )
    max_connections: int = Field(
        default=900,
        ge=1,
        description=(
            "Connections open at a time; more get /livez, /readyz and /metrics, else 503. 900: below the "
            "1,024 open files of a plain Linux process, and more than REWRITE_MAX_INFLIGHT and "
            "REWRITE_MAX_WAITING can use."
        ),
    )
    max_header_bytes: int = Field(
        default=32_768,
        ge=1024,
        description=(
            "Bytes of a request's URL, headers and trailers together; more is 431. 32 KiB: twice what common "
            "proxies let pass. One read of the socket more, 256 KB, may be in memory before it is refused."
        ),
    )
    max_headers: int = Field(
        default=100,
        ge=1,
        description="Headers of a request; more is 431. 100: as common servers; meshes add a dozen.",
    )
    max_url_bytes: int = Field(
        default=8192,
        ge=64,
        description="Bytes of a request's URL; more is 414. 8 KiB: as common servers; paths here have 40.",
    )
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description=(
            "Seconds until the headers of a request are there, from its first byte, or from the beginning of "
            "its connection; then 408, or only the end of it. 10: a slow mobile link needs 1."
        ),
    )
    send_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description=(
            "Seconds a client may leave its answers unread before its connection is cut. 10: as for headers."
        ),
    )

    drain_grace_s: float = Field(
        default=0.0,
        ge=0,
        description=(
            "Seconds after SIGTERM in which /readyz is 503 already but requests are still served, until load "
            "balancers have noticed. 0: a terminal wants it at once; set 5 behind a load balancer."
        ),
    )
    drain_timeout_s: float = Field(
        default=10.0,
        ge=0,
        description="Seconds requests in flight may take to finish at shutdown. 10: every deadline fits.",
    )
