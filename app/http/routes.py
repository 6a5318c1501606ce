"""The routes. Each handler reads, asks, and writes; everything else is elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequestError
from app.http import openapi
from app.http.bearer import forced_arm
from app.http.body import parse_batch, parse_rewrite, read_body
from app.http.errors import wire_error
from app.http.schemas import Alive, wire_answer
from app.http.timeout import header_ms
from app.rewrite.deadline import Deadline, deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.http.bearer import Bearer
    from app.http.middleware import Exchange
    from app.logs import QueryFingerprint
    from app.rewrite.answer import Answer, Query
    from app.rewrite.batch import BatchRewriter
    from app.rewrite.service import RewriteService
    from app.settings import Settings
    from app.telemetry import Metrics

REASON_HEADER = "x-corewrite-reason"


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers and what they need, wired in app/main.py.

    `readiness` is (may serve, JSON object); `counted` counts the search of an answer and puts its token in.
    """

    settings: Settings
    service: RewriteService
    batches: BatchRewriter
    metrics: Metrics
    fingerprint: QueryFingerprint
    readiness: Callable[[], tuple[bool, dict[str, object]]]
    counted: Callable[[Answer], Answer]
    bearer: Bearer

    async def rewrite(self, request: Request) -> Response:
        """POST /v1/rewrite."""
        exchange: Exchange = request.scope["corewrite"]
        settings = self.settings
        body = await read_body(request, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
        query = replace(parse_rewrite(body).to_query(), arm=forced_arm(request, self.bearer))
        exchange.log.update(self.fingerprint.fields(query.text))
        deadline = deadline_of(
            exchange.arrived_s,
            body_ms=query.deadline_ms,
            header_ms=header_ms(request, self.metrics),
            default_ms=settings.deadline_ms,
        )
        answer = self.counted(await self.service.rewrite(query, deadline))
        exchange.log.update(
            num_rewrites=len(answer.rewrites),
            reason=answer.reason,
            cache=answer.cache,
            deadline_by=deadline.source,
            arm=answer.arm,
        )
        headers = {REASON_HEADER: answer.reason.value} if answer.reason else None
        return Response(to_json(wire_answer(answer)), headers=headers, media_type="application/json")

    async def rewrite_batch(self, request: Request) -> Response:
        """POST /v1/rewrite/batch."""
        exchange: Exchange = request.scope["corewrite"]
        settings = self.settings
        body = await read_body(
            request, max_bytes=settings.max_batch_body_bytes, timeout_s=settings.body_timeout_s
        )
        proxy_ms = header_ms(request, self.metrics)

        def due(body_ms: int | None) -> Deadline:
            return deadline_of(
                exchange.arrived_s,
                body_ms=body_ms,
                header_ms=proxy_ms,
                default_ms=settings.batch_deadline_ms,
            )

        items: list[tuple[Query, Deadline] | BadRequestError] = []
        for parsed in parse_batch(body):
            if isinstance(parsed, BadRequestError):
                items.append(parsed)
            else:
                items.append((parsed.to_query(), due(parsed.deadline_ms)))
        exchange.spend(len(items) - 1)  # the request itself was one
        answers = await self.batches.rewrite(items, budget_s=due(None).at_s - exchange.arrived_s)
        exchange.log.update(items=len(items), reasons=self._count(answers))
        responses = [
            wire_error(answer) if isinstance(answer, BadRequestError) else wire_answer(answer)
            for answer in answers
        ]
        return Response(to_json({"responses": responses}), media_type="application/json")

    async def livez(self) -> Response:
        """GET /livez."""
        return Response(to_json(Alive(status="alive")), media_type="application/json")

    async def readyz(self) -> Response:
        """GET /readyz."""
        may_serve, state = self.readiness()
        return Response(to_json(state), status_code=200 if may_serve else 503, media_type="application/json")

    async def prometheus(self) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    def _count(self, answers: list[Answer | BadRequestError]) -> dict[str, int]:
        """Answers per reason; invalid items are counted here, the others were by the service."""
        reasons: Counter[str] = Counter()
        for answer in answers:
            if isinstance(answer, BadRequestError):
                self.metrics.count_request("invalid")
                reasons[answer.code] += 1
            else:
                reasons[answer.reason or "none"] += 1
        return dict(reasons)


def install_routes(app: FastAPI, handlers: Handlers) -> None:
    """Add every route to `app`."""
    router = APIRouter()
    router.add_api_route("/v1/rewrite", handlers.rewrite, methods=["POST"], **openapi.REWRITE)
    router.add_api_route("/v1/rewrite/batch", handlers.rewrite_batch, methods=["POST"], **openapi.BATCH)
    router.add_api_route("/livez", handlers.livez, methods=["GET"], **openapi.LIVEZ)
    router.add_api_route("/readyz", handlers.readyz, methods=["GET"], **openapi.READYZ)
    router.add_api_route("/metrics", handlers.prometheus, methods=["GET"], **openapi.METRICS)
    app.include_router(router)
