"""The route under /admin, which changes what is served. It asks for the bearer token of the settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from app.contracts.manifest import CHECKPOINT_ID
from app.http.body import parse_request, read_body
from app.http.schemas import WireError

if TYPE_CHECKING:
    from app.http.bearer import Bearer
    from app.rewrite.activation import Activator

_MAX_BODY_BYTES = 4096


class ActivateRequest(BaseModel):
    """Which checkpoint to activate, and how."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=CHECKPOINT_ID)] = Field(
        description="The checkpoint's id: the name of its folder in REWRITE_CHECKPOINTS."
    )
    mechanism: Literal["beside", "in_place"] = Field(
        default="beside",
        description=(
            "beside: into an engine of its own, which takes memory for both. in_place: into the engine that "
            "is there, while generations wait; it falls back to beside."
        ),
    )


class ActivateAnswer(BaseModel):
    """What became of it."""

    model_config = ConfigDict(extra="forbid")

    checkpoint_id: str
    weights_digest: str
    outcome: Literal["activated", "already_active"]
    mechanism: Literal["beside", "in_place"] = Field(description="The one that did it.")
    golden: int = Field(description="Golden prompts that the engine answered as recorded.")
    told_apart: bool | None = Field(
        description="Whether the checkpoint before answers any of them otherwise; null: it did not answer."
    )
    fell_back: str | None = Field(description="Why it was not done in place, where that was asked for.")
    switched_s: float = Field(description="Seconds until it answered.")
    total_s: float = Field(description="Seconds until the checkpoint before had left memory.")


@dataclass(frozen=True, slots=True)
class AdminHandlers:
    """The handlers and what they need, wired in app/main.py."""

    bearer: Bearer
    activator: Activator
    body_timeout_s: float

    async def activate(self, request: Request) -> Response:
        """POST /admin/checkpoints/activate."""
        self.bearer.require(request)
        body = await read_body(request, max_bytes=_MAX_BODY_BYTES, timeout_s=self.body_timeout_s)
        asked = parse_request(body, ActivateRequest)
        activation = await self.activator.activate(asked.id, asked.mechanism)
        return Response(to_json(asdict(activation)), media_type="application/json")


def _errors() -> dict[int | str, dict[str, Any]]:
    why = {
        401: "No token, or a wrong one.",
        403: "No token is set, so nobody may.",
        404: "No such checkpoint.",
        408: "The body did not arrive in time.",
        409: "Not activated, and `detail` says why; the one before serves on.",
        413: "The body is too large.",
        422: "The request is malformed; `detail` names the field.",
        429: "Too many wrong tokens, or too many requests, of this client.",
    }
    return {status: {"model": WireError, "description": text} for status, text in why.items()}


def install_admin_routes(app: FastAPI, handlers: AdminHandlers) -> None:
    """Add the routes to `app`."""
    router = APIRouter()
    schema = ActivateRequest.model_json_schema()
    router.add_api_route(
        "/admin/checkpoints/activate",
        handlers.activate,
        methods=["POST"],
        summary="Activate a checkpoint",
        description=(
            "Loads and proves it, then switches; requests under way end with the one before. Answers when "
            "that has left memory."
        ),
        response_model=None,
        responses={200: {"model": ActivateAnswer, "description": "It serves."}, **_errors()},
        openapi_extra={
            "security": [{"admin": []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        },
    )
    app.include_router(router)
