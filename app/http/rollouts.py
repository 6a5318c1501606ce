"""The routes under /v1/admin: what `corewrite rollout` does, for whoever has the token. Without one: none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from app.http.body import parse_request, read_body
from app.http.schemas import WireError
from app.rollout.orders import ORDERS, Orders, Word
from app.rollout.traffic import ASKED

if TYPE_CHECKING:
    from app.http.bearer import Bearer
    from app.rollout.traffic import Traffic

_MAX_BODY_BYTES = 524_288  # of the longest plan, each character of it escaped

Words = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class _Ask(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    who: Words = Field(description="For the audit trail.")
    why: Words = Field(description="For the audit trail.")


class OrderRequest(_Ask):
    """Do something to the live rollout."""


class StartRequest(_Ask):
    """Start a rollout."""

    checkpoint: Words = Field(description="Alias, address (or 8 characters of it), or id, in the registry.")
    plan: Annotated[str, StringConstraints(min_length=1, max_length=32_768)] = Field(
        description="TOML: steps, goal, guardrails."
    )
    name: Words | None = Field(default=None, description="Of the rollout, never used before.")
    ungated: bool = Field(default=False, description="Though the gate has not said PASS.")


class KillRequest(_Ask):
    """Give everybody the original, or stop doing so."""

    on: bool = Field(default=True, description="False: stop doing so.")


@dataclass(frozen=True, slots=True)
class RolloutHandlers:
    """The handlers and what they need, wired in app/main.py."""

    bearer: Bearer
    orders: Orders
    traffic: Traffic
    body_timeout_s: float

    async def status(self, request: Request) -> Response:
        """GET /v1/admin/rollout."""
        self.bearer.require(request)
        return _json(await asyncio.to_thread(self.orders.status))

    async def history(self, request: Request) -> Response:
        """GET /v1/admin/rollout/history."""
        self.bearer.require(request)
        return _json({"transitions": await asyncio.to_thread(self.orders.history)})

    async def start(self, request: Request) -> Response:
        """POST /v1/admin/rollout/start."""
        asked = parse_request(await self._body(request), StartRequest)
        return _json(
            await asyncio.to_thread(
                self.orders.start,
                asked.checkpoint,
                asked.plan,
                who=asked.who,
                why=asked.why,
                name=asked.name,
                ungated=asked.ungated,
            )
        )

    def order(self, word: Word) -> Callable[[Request], Any]:
        """POST /v1/admin/rollout/{word}."""

        async def handle(request: Request) -> Response:
            asked = parse_request(await self._body(request), OrderRequest)
            return _json(await asyncio.to_thread(self.orders.order, word, who=asked.who, why=asked.why))

        return handle

    async def kill(self, request: Request) -> Response:
        """POST /v1/admin/kill: here at once, elsewhere when they look at the store."""
        asked = parse_request(await self._body(request), KillRequest)
        # Whether or not the store can be reached.
        (self.traffic.stopped.add if asked.on else self.traffic.stopped.discard)(ASKED)
        return _json(await asyncio.to_thread(self.orders.kill, on=asked.on, who=asked.who, why=asked.why))

    async def _body(self, request: Request) -> bytes:
        self.bearer.require(request)
        return await read_body(request, max_bytes=_MAX_BODY_BYTES, timeout_s=self.body_timeout_s)


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")


def install_rollout_routes(app: FastAPI, handlers: RolloutHandlers) -> None:
    """Add the routes to `app`."""
    router = APIRouter()
    router.add_api_route(
        "/v1/admin/rollout", handlers.status, methods=["GET"], **_route("What is deployed, and how it does")
    )
    router.add_api_route(
        "/v1/admin/rollout/history",
        handlers.history,
        methods=["GET"],
        **_route("Who did what, and why"),
    )
    posts: list[tuple[str, Callable[[Request], Any], str, type[BaseModel]]] = [
        ("rollout/start", handlers.start, "Start a rollout", StartRequest),
        ("kill", handlers.kill, "Give everybody the original, now", KillRequest),
        *(
            (f"rollout/{word}", handlers.order(word), f"{word.capitalize()} the live rollout", OrderRequest)
            for word in ORDERS
        ),
    ]
    for path, handle, summary, body in posts:
        router.add_api_route(f"/v1/admin/{path}", handle, methods=["POST"], **_route(summary, body))
    app.include_router(router)


def _route(summary: str, body: type[BaseModel] | None = None) -> dict[str, Any]:
    why = {
        401: "No token, or a wrong one.",
        404: "No such checkpoint.",
        408: "The body did not arrive in time.",
        409: "It cannot be done in this state, and `detail` says why.",
        413: "The body is too large.",
        422: "The request, or the plan, is malformed; `detail` names the field.",
        429: "Too many wrong tokens, or too many requests, of this client.",
        503: "The store is out of reach.",
    }
    extra: dict[str, Any] = {"security": [{"admin": []}]}
    if body is not None:
        content = {"application/json": {"schema": body.model_json_schema()}}
        extra["requestBody"] = {"required": True, "content": content}
    return {
        "summary": summary,
        "response_model": None,
        "responses": {status: {"model": WireError, "description": text} for status, text in why.items()},
        "openapi_extra": extra,
    }
