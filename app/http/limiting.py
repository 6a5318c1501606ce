"""Refuses whoever asks too often, before anything of the request but its head was looked at. Pure ASGI."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from app.http.errors import RateLimitedError, error_answer
from app.http.middleware import PROBES
from app.http.rate import Buckets

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.http.client import ClientNames
    from app.settings import Settings

_MAX_CLIENTS = 100_000  # some 15 MB of buckets


class RateLimitMiddleware:
    """A token for each request; a batch takes one for each item, in arrears. Probes are free."""

    def __init__(self, app: ASGIApp, *, buckets: Buckets, clients: ClientNames) -> None:
        self._app = app
        self._buckets = buckets
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI; inside RequestMiddleware, which counts and logs."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        exchange = scope["corewrite"]
        client = self._clients.name(scope)
        wait_s = self._buckets.wait_s(client)
        if wait_s > 0:
            exchange.metrics.shed.labels("rate_limited").inc()
            exchange.log["client"] = client
            error = RateLimitedError("this client asks too often", retry_after_s=max(1, math.ceil(wait_s)))
            await error_answer(scope, error)(scope, receive, send)
            return
        self._buckets.take(client)
        exchange.spend = lambda tokens: self._buckets.take(client, tokens)
        await self._app(scope, receive, send)


def install_rate_limit(
    app: FastAPI, settings: Settings, *, clients: ClientNames, clock: Callable[[], float]
) -> None:
    """Limit clients where the settings say so; before RequestMiddleware is added, to be inside it."""
    if settings.client_rate_per_s is not None:
        buckets = Buckets(
            per_s=settings.client_rate_per_s,
            burst=settings.client_burst,
            max_clients=_MAX_CLIENTS,
            clock=clock,
        )
        app.add_middleware(RateLimitMiddleware, buckets=buckets, clients=clients)
