"""The settings of the HTTP edge: where it listens, what it takes, how it leaves."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import BaseSettings

from app.credentials import Token


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
    admin_token: Token | None = Field(
        default=None,
        description=(
            "Bearer token of the routes under /admin, which change what is served. Unset: they are refused "
            "to everybody, because behind a proxy every caller comes from loopback."
        ),
    )
    events_token: Token | None = Field(
        default=None,
        description=(
            "Bearer token of /v1/events. Unset: nobody is asked for one, and who knows the query_id of a "
            "search may report on it; its signed `exposure` says where that counts, which nobody can choose."
        ),
    )
    max_token_failures: int = Field(
        default=10,
        ge=1,
        description=(
            "Wrong bearer tokens a client may send at once, and regain in a minute; then 429 without a look, "
            "whatever it sends. 10: a person's typing errors, and too few to guess by."
        ),
    )
    client_rate_per_s: float | None = Field(
        default=None,
        gt=0,
        description=(
            "Requests a client may make each second in the long run, items of a batch each; then 429. Unset: "
            "any number, because to a sidecar one peer is all the traffic, and admission protects the server."
        ),
    )
    client_burst: int = Field(
        default=100,
        ge=1,
        description=(
            "Requests a client may make at once before REWRITE_CLIENT_RATE_PER_S holds. 100: somebody with "
            "many tabs, whose searches have three stages each."
        ),
    )
    client_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = Field(
        default=None,
        description=(
            "Header that says whose request it is, such as x-real-ip or x-client-id; a proxy in front must "
            "write it, whatever its own client sent. Unset: the address of the peer."
        ),
    )
    console: bool = Field(
        default=True,
        description=(
            "Whether there is a console for people at /console. With REWRITE_ADMIN_TOKEN it asks for that; "
            "without, it only reads. True: it is where a deployment is looked at first; see docs/console.md."
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
        default=16_384,
        ge=1,
        description=(
            "Connections open at a time, fewer where the system allows fewer open files; more get /livez, "
            "/readyz and /metrics, else 503. 16,384: pools of many idle ones are common, and 10,000 took "
            "some 100 MB (docs/faults.md)."
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

    @field_validator("client_header")
    @classmethod
    def _is_written_by_the_proxy(cls, header: str | None) -> str | None:
        if header is not None and header.lower() in {"x-forwarded-for", "forwarded"}:
            raise ValueError("its beginning is the client's own claim: let the proxy write x-real-ip")
        return header

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
