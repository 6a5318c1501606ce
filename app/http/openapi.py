"""What the OpenAPI document says about each route: schemas, examples, every status that may come back.

Bodies are parsed by app/http/body.py rather than by FastAPI, so that a body is read once, bounded, in time,
and refused in one shape. FastAPI therefore does not see the request models; `install` adds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.http import signal_examples
from app.http.schemas import (
    Alive,
    BatchAnswer,
    BatchRequest,
    Readiness,
    RewriteAnswer,
    RewriteRequest,
    WireError,
)
from app.http.signal_schemas import SignalsAnswer, SignalsRequest

if TYPE_CHECKING:
    from fastapi import FastAPI

_REQUEST_EXAMPLE = {
    "query": "in blue, size 42",
    "query_id": "q-1",
    "context": {
        "last_item": {"id": "B07", "title": "Acme running shoes", "text": "men, black"},
        "previous_queries": ["running shoes"],
    },
    "locale": "en-GB",
    "deadline_ms": 200,
    "num_rewrites": 2,
}
_ANSWER_EXAMPLE = {
    "query_id": "q-1",
    "original": "in blue, size 42",
    "rewrites": [
        {"text": "acme running shoes men blue size 42", "logprob": -1.31, "confidence": 0.82, "rank": 1}
    ],
    "arm": "stable",
    "exposure": None,
    "checkpoint": {"id": "default-1", "weights_digest": "9f" * 32},
    "degraded": False,
    "reason": None,
    "drops": {"copy": 1},
    "cache": "miss",
    "stages": ["recall", "rawrank", "finerank"],
    "timings_ms": {"queue": 0.01, "cache": 0.02, "engine": 41.7, "guard": 0.12, "total": 41.9},
}
_DEGRADED_EXAMPLE = {
    **_ANSWER_EXAMPLE,
    "rewrites": [],
    "degraded": True,
    "reason": "deadline",
    "drops": {},
    "timings_ms": {"queue": 0.01, "cache": 0.02, "engine": 198.4, "guard": 0.0, "total": 198.6},
}
_TIMEOUT_PARAMETER = {
    "name": "x-envoy-expected-rq-timeout-ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds the caller's proxy waits. What is no positive whole number is ignored.",
    "schema": {"type": "string"},
}
_TRACE_PARAMETER = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C trace context. Invalid ones are ignored and a new trace begun.",
    "schema": {"type": "string"},
}


def _error(description: str, word: str, detail: str, *, retry: bool = False) -> dict[str, Any]:
    response: dict[str, Any] = {
        "model": WireError,
        "description": description,
        "content": {"application/json": {"example": {"error": word, "detail": detail}}},
    }
    if retry:
        response["headers"] = {
            "retry-after": {
                "description": "Seconds after which to try again.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return response


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: _error(
        "An arm is asked for by x-corewrite-arm, without the administrators' token.",
        "unauthorized",
        "send the header `authorization: Bearer <REWRITE_ADMIN_TOKEN>`",
    ),
    403: _error(
        "As 401, where there is no such token.", "forbidden", "set REWRITE_ADMIN_TOKEN to allow this"
    ),
    408: _error("The body did not arrive in time.", "body_timeout", "body: not received within 5 s"),
    413: _error("The body is too large.", "body_too_large", "body: larger than 262144 bytes"),
    422: _error(
        "The request is malformed; `detail` names the field.",
        "invalid_request",
        "query: must have a visible character and no control characters",
    ),
    429: _error(
        "Shed before any work; rate_limited: because of this client.",
        "overloaded",
        "too many requests are waiting",
        retry=True,
    ),
    503: _error("Shutting down.", "draining", "shutting down; retry elsewhere", retry=True),
}


def _body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    return {
        "parameters": [_TIMEOUT_PARAMETER, _TRACE_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
            },
        },
    }


_REASON_HEADER = {
    "x-corewrite-reason": {
        "description": "The reason of the body, where there is one.",
        "schema": {"type": "string"},
    }
}

REWRITE: dict[str, Any] = {
    "summary": "Rewrite one query",
    "description": "Always 200 with the original, unless the request is malformed or shed before any work.",
    "response_model": None,
    "responses": {
        200: {
            "model": RewriteAnswer,
            "description": "The original and what may be put beside it.",
            "headers": _REASON_HEADER,
        },
        **_ERRORS,
    },
    "openapi_extra": _body("RewriteRequest", _REQUEST_EXAMPLE),
}
BATCH: dict[str, Any] = {
    "summary": "Rewrite up to 256 queries",
    "description": (
        "Answers in order. An invalid item gets `{error, detail}` in its place and loses nobody else; only a "
        "malformed envelope is refused as a whole. The timeout header holds for the batch together."
    ),
    "response_model": None,
    "responses": {
        200: {
            "model": BatchAnswer,
            "description": "One answer or error per item.",
        },
        **_ERRORS,
    },
    "openapi_extra": _body("BatchRequest", {"requests": [_REQUEST_EXAMPLE, {"query": "rn icu nights"}]}),
}
SIGNALS: dict[str, Any] = {
    "summary": "Signals of a query for recall, rawrank and finerank",
    "description": (
        "The rewrites as further queries, and per candidate a factor that leaves the ranking as it is where "
        "there is no rewrite, no time, or no relevance model. Calls with the same query_id, query, context, "
        "locale and client_id share their rewrites for a while. Ids of candidates are distinct."
    ),
    "response_model": None,
    "responses": {
        200: {
            "model": SignalsAnswer,
            "description": "The signals of the stages that were asked for.",
            "headers": _REASON_HEADER,
        },
        **_ERRORS,
    },
    "openapi_extra": _body("SignalsRequest", signal_examples.REQUEST),
}
# Set on the finished document: FastAPI leaves out what is null, and `"reason": null` is worth showing.
_ANSWER_EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/rewrite": {
        "rewritten": {"value": _ANSWER_EXAMPLE},
        "degraded": {"value": _DEGRADED_EXAMPLE},
    },
    "/v1/signals": signal_examples.ANSWERS,
    "/v1/rewrite/batch": {
        "mixed": {
            "value": {
                "responses": [
                    _ANSWER_EXAMPLE,
                    {"error": "invalid_request", "detail": "query: Field required"},
                ]
            }
        }
    },
}
LIVEZ: dict[str, Any] = {
    "summary": "Is the process alive",
    "response_model": None,
    "responses": {200: {"model": Alive, "description": "Alive."}},
}
READYZ: dict[str, Any] = {
    "summary": "May traffic be sent here",
    "response_model": None,
    "responses": {
        200: {"model": Readiness, "description": "Ready."},
        503: {"model": Readiness, "description": "Starting or draining."},
    },
}
METRICS: dict[str, Any] = {
    "summary": "Prometheus metrics",
    "response_model": None,
    "responses": {
        200: {"description": "Text exposition.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
}


def install(app: FastAPI) -> None:
    """Make `app.openapi` know the request models, and nothing of FastAPI's own error shape."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, requests = models_json_schema(
                [(model, "validation") for model in (RewriteRequest, BatchRequest, SignalsRequest)],
                ref_template="#/components/schemas/{model}",
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(requests["$defs"])
            schema["components"]["securitySchemes"] = {
                name: {"type": "http", "scheme": "bearer", "description": f"REWRITE_{name.upper()}_TOKEN"}
                for name in ("admin", "events")
            }
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for path, examples in _ANSWER_EXAMPLES.items():
                answer = schema["paths"][path]["post"]["responses"]["200"]
                answer["content"]["application/json"]["examples"] = examples
            app.openapi_schema = schema
        return app.openapi_schema

    # FastAPI's documented way to extend the document.
    app.openapi = document  # type: ignore[method-assign]
