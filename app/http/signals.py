"""The route `/v1/signals`: what recall, rawrank and finerank take from the rewrites of a query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from app.http import openapi
from app.http.bearer import forced_arm
from app.http.body import parse_request, read_body
from app.http.routes import REASON_HEADER
from app.http.signal_schemas import SignalsRequest, wire_signals
from app.http.timeout import header_ms
from app.rewrite.deadline import deadline_of

if TYPE_CHECKING:
    from app.http.bearer import Bearer
    from app.http.middleware import Exchange
    from app.logs import QueryFingerprint
    from app.rewrite.answer import Answer
    from app.settings import Settings
    from app.signals.service import SignalService
    from app.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class SignalHandlers:
    """The handler and what it needs, wired in app/main.py."""

    settings: Settings
    service: SignalService
    metrics: Metrics
    fingerprint: QueryFingerprint
    counted: Callable[[Answer], Answer]
    bearer: Bearer

    async def signals(self, request: Request) -> Response:
        """POST /v1/signals."""
        exchange: Exchange = request.scope["corewrite"]
        settings = self.settings
        body = await read_body(
            request, max_bytes=settings.max_signals_body_bytes, timeout_s=settings.body_timeout_s
        )
        asked = parse_request(body, SignalsRequest)
        query = replace(asked.to_query(), arm=forced_arm(request, self.bearer))
        exchange.log.update(self.fingerprint.fields(query.text), candidates=len(asked.candidates))
        deadline = deadline_of(
            exchange.arrived_s,
            body_ms=query.deadline_ms,
            header_ms=header_ms(request, self.metrics),
            default_ms=settings.signals_deadline_ms,
        )
        candidates = [candidate.to_candidate() for candidate in asked.candidates]
        signals = await self.service.signals(query, candidates, deadline)
        answer = self.counted(signals.answer)
        signals = replace(signals, answer=answer)
        exchange.log.update(
            num_rewrites=len(answer.rewrites),
            reason=answer.reason,
            stages=signals.reasons,
            remembered=signals.remembered,
            deadline_by=deadline.source,
            arm=answer.arm,
        )
        headers = {REASON_HEADER: answer.reason.value} if answer.reason else None
        return Response(
            to_json(wire_signals(signals, asked.format)), headers=headers, media_type="application/json"
        )


def install_signal_routes(app: FastAPI, handlers: SignalHandlers) -> None:
    """Add the route to `app`."""
    router = APIRouter()
    router.add_api_route("/v1/signals", handlers.signals, methods=["POST"], **openapi.SIGNALS)
    app.include_router(router)
