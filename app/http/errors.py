"""Errors of the transport, and how every error becomes one JSON shape: `{"error": ..., "detail": ...}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import BadRequestError, CorewriteError, OverloadedError, UnauthorizedError
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Scope

SEARCHES = ("/v1/rewrite", "/v1/signals")
"""So begin the paths where somebody searches: what fails there counts against the objective of searches, and
what an administrator or a reporter of events is refused does not."""

_HTTP_WORDS = {404: "not_found", 405: "method_not_allowed"}


class BodyTooLargeError(BadRequestError):
    """The body has more bytes than the route takes."""

    code = "body_too_large"
    status = 413


class BodyTimeoutError(BadRequestError):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408


class RateLimitedError(OverloadedError):
    """This client has asked too often; others are served."""

    code = "rate_limited"


class TooManyFailuresError(UnauthorizedError):
    """This client has sent too many wrong tokens: what it sends now is not even looked at."""

    code = "too_many_failures"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def retry_after(error: CorewriteError) -> dict[str, str]:
    """The header that says when to come again, where an error knows."""
    if isinstance(error, OverloadedError | TooManyFailuresError):
        return {"retry-after": str(error.retry_after_s)}
    return {}


def wire_error(error: CorewriteError) -> dict[str, str]:
    """The JSON object of an error; also what stands in a batch in place of an answer."""
    return {"error": error.code, "detail": str(error)}


def install_error_handlers(app: FastAPI) -> None:
    """Map every error that may leave a route."""
    app.add_exception_handler(CorewriteError, _corewrite_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _response(status: int, content: dict[str, str], headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status_code=status, headers=headers, media_type="application/json")


async def _corewrite_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CorewriteError)  # noqa: S101 -- what the handler is registered for
    return error_answer(request.scope, error)


def error_answer(scope: Scope, error: CorewriteError) -> Response:
    """The answer that an error becomes, counted and noted for the log."""
    exchange = scope.get("corewrite")
    if exchange is not None:
        exchange.log["error"] = error.code
        shed = isinstance(error, OverloadedError)
        _count(scope, "shed" if shed else "invalid" if error.status < 500 else "failed")  # noqa: PLR2004
    return _response(error.status, wire_error(error), retry_after(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- what the handler is registered for
    word = _HTTP_WORDS.get(error.status_code, "http_error")
    detail = f"{request.method} {request.url.path[:128]}: {error.detail}"
    return _response(error.status_code, {"error": word, "detail": detail}, dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    LOGGER.error("unexpected error", exc_info=error)
    _count(request.scope, "failed")
    return _response(500, {"error": "internal_error", "detail": "the server failed; the log says why"})


def _count(scope: Scope, outcome: str) -> None:
    exchange = scope.get("corewrite")
    if exchange is not None and scope["path"].startswith(SEARCHES):
        exchange.metrics.count_request(outcome)
