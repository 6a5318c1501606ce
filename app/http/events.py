"""The route `/v1/events`: what users did after a search, in the shape of User Behavior Insights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from app.http.body import parse_request, read_body, what_is_wrong
from app.http.schemas import Identifier, WireError
from app.rollout.counter import Action, Counter, Event

if TYPE_CHECKING:
    from app.http.bearer import Bearer
    from app.settings import Settings
    from app.telemetry import Metrics

MAX_EVENTS = 1000
ACTIONS: Mapping[str, Action] = {
    "click": "clicks",
    "item_click": "clicks",
    "strict_click": "strict",
    "add_to_cart": "strict",
    "purchase": "strict",
    "change_query": "changed",
}
"""What counts. A strict click is one that the user stayed with, which the page knows and we do not."""


class WireEvent(BaseModel):
    """What a user did. Other fields that UBI knows may be there; they are not read."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    event_id: Identifier | None = Field(
        default=None,
        description="Whatever comes twice under it counts once. Absent: made of the other fields.",
    )
    query_id: Identifier
    client_id: Identifier | None = None
    action_name: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        description=f"Of these: {', '.join(ACTIONS)}; any other is taken and counts for nothing."
    )
    object_id: Identifier | None = Field(default=None, description="What it was done with.")
    position: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Of the object.")
    timestamp: Annotated[str, StringConstraints(max_length=64)] | int | None = Field(
        default=None, description="ISO 8601, or milliseconds since 1970."
    )
    exposure: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="As the answer to the search had it; any replica knows by it where it counts."
    )

    def to_event(self) -> Event:
        """The event that is counted."""
        return Event(
            self.event_id or self._made_id(), self.query_id, ACTIONS.get(self.action_name), self.exposure
        )

    def _made_id(self) -> str:
        parts = (self.query_id, self.client_id, self.action_name, self.object_id, str(self.timestamp))
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


class EventsRequest(BaseModel):
    """Up to 1,000 events, in any order; an invalid one loses none of the others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_EVENTS)]


class InvalidEvent(BaseModel):
    """An event that was not taken, by its place in the batch, and why."""

    index: int
    detail: str


class EventsAnswer(BaseModel):
    """What became of the events, in numbers; the store has what is accepted."""

    accepted: int = Field(description="They count, now or since they came before.")
    ignored: int = Field(description="Their action counts for nothing.")
    unknown: int = Field(description="No search is known that they would belong to.")
    invalid: list[InvalidEvent]


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """The handler and what it needs, wired in app/main.py."""

    settings: Settings
    counter: Counter
    metrics: Metrics
    bearer: Bearer

    async def events(self, request: Request) -> Response:
        """POST /v1/events."""
        if self.bearer.token is not None:
            self.bearer.require(request)
        body = await read_body(
            request, max_bytes=self.settings.max_batch_body_bytes, timeout_s=self.settings.body_timeout_s
        )
        valid: list[Event] = []
        invalid: list[dict[str, Any]] = []
        for index, item in enumerate(parse_request(body, EventsRequest).events):
            try:
                valid.append(WireEvent.model_validate(item).to_event())
            except ValidationError as error:
                invalid.append({"index": index, "detail": what_is_wrong(error)})
        taken = await self.counter.take(valid)
        told = {"accepted": taken.accepted, "ignored": taken.ignored, "unknown": taken.unknown}
        for result, number in (*told.items(), ("invalid", len(invalid))):
            self.metrics.events.labels(result).inc(number)
        request.scope["corewrite"].log.update(events=len(valid), unknown=taken.unknown)
        return Response(to_json({**told, "invalid": invalid}), media_type="application/json")


def install_event_routes(app: FastAPI, handlers: EventHandlers) -> None:
    """Add the route to `app`."""
    why = {
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        422: "The batch is malformed; `detail` names the field.",
        429: "Too many events wait for the store, or this client asks too often; send them again.",
        503: "The store is out of reach; send them again.",
    }
    extra: dict[str, Any] = {}
    if handlers.bearer.token is not None:
        why[401] = "No token, or a wrong one."
        extra["security"] = [{"events": []}]
    router = APIRouter()
    schema = EventsRequest.model_json_schema()
    schema["properties"]["events"]["items"] = WireEvent.model_json_schema()
    router.add_api_route(
        "/v1/events",
        handlers.events,
        methods=["POST"],
        summary="Report what users did",
        description="Answers when the store has what is accepted. Sent again, an event counts once.",
        response_model=None,
        responses={
            200: {"model": EventsAnswer, "description": "They are kept."},
            **{status: {"model": WireError, "description": text} for status, text in why.items()},
        },
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            **extra,
        },
    )
    app.include_router(router)
