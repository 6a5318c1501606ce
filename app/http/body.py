"""From the bytes of a request body to a valid wire request, or a message that names what is wrong.

The fast way is pydantic's own parser. Only what it refuses as JSON is looked at a second time with Python's,
which accepts lone surrogates and deeper nesting: so the message can name the field, and one such item does
not lose the others of a batch. Nothing a client sent is quoted in a message but field names.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import ClientDisconnect

from app.errors import BadRequestError
from app.http.errors import BodyTimeoutError, BodyTooLargeError
from app.http.schemas import MAX_BATCH, RewriteRequest

if TYPE_CHECKING:
    from starlette.requests import Request

M = TypeVar("M", bound=BaseModel)

_MAX_PROBLEMS = 5
_MOST_LISTED = 1000
"""Of more problems only the number is told: pydantic lists all or none, and a million take seconds."""
_MAX_NAME_CHARS = 64
# Longer integers are beyond every field; as infinity they fail where they stand, not the whole document.
_MAX_INT_DIGITS = 400

_TEXT_RULE = "must have a visible character and no control characters"
_PATTERN_RULES = {
    "locale": "must be a language tag such as en, en-GB or zh-Hant-TW",
    "text": "must have no control characters",
}


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        BodyTooLargeError: it is, or announces to be, larger than `max_bytes`.
        BodyTimeoutError: it was not there after `timeout_s` seconds, or the client left.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise BodyTooLargeError(f"body: larger than {max_bytes} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise BodyTooLargeError(f"body: larger than {max_bytes} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyTimeoutError(f"body: not received within {timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise BodyTimeoutError("body: the client left before it was sent") from error
    return b"".join(chunks)


def parse_rewrite(body: bytes) -> RewriteRequest:
    """One query to rewrite; see `parse_request`."""
    return parse_request(body, RewriteRequest)


def parse_request(body: bytes, model: type[M]) -> M:
    """One request.

    Raises:
        BadRequestError: the message names the field.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > 1 or _problems(error)[0]["type"] != "json_invalid":
            _refuse(error)
    return _validated(_lenient_json(body), model)


def parse_batch(body: bytes) -> list[RewriteRequest | BadRequestError]:
    """The items of a batch, each valid or an error.

    Raises:
        BadRequestError: the envelope itself is malformed.
    """
    try:
        envelope = from_json(body, allow_inf_nan=False)
    except ValueError:
        envelope = _lenient_json(body)
    if not isinstance(envelope, dict):
        raise BadRequestError("body: must be an object")
    for name in envelope:
        if name != "requests":
            raise BadRequestError(f"{_shown(name)}: unknown field")
    items = envelope.get("requests")
    if not isinstance(items, list):
        raise BadRequestError("requests: must be a list")
    if not 1 <= len(items) <= MAX_BATCH:
        raise BadRequestError(f"requests: must have 1 to {MAX_BATCH} items, not {len(items)}")
    parsed: list[RewriteRequest | BadRequestError] = []
    for item in items:
        try:
            parsed.append(_validated(item, RewriteRequest))
        except BadRequestError as error:
            parsed.append(error)
    return parsed


def _validated(value: object, model: type[M]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _refuse(error)
    except RecursionError as error:
        raise BadRequestError("body: nested too deeply") from error


def _refuse(error: ValidationError) -> NoReturn:
    raise BadRequestError(what_is_wrong(error)) from None


def what_is_wrong(error: ValidationError) -> str:
    """What is wrong, naming the fields; nothing that a client sent is quoted."""
    if error.error_count() > _MOST_LISTED:
        return f"body: {error.error_count()} fields are unknown or wrong"
    problems = _problems(error)
    shown = "; ".join(_told(problem) for problem in problems[:_MAX_PROBLEMS])
    more = len(problems) - _MAX_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


def _problems(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False, include_context=False)


def _told(problem: ErrorDetails) -> str:
    place = ".".join(_shown(part) for part in problem["loc"]) or "body"
    kind = problem["type"]
    if kind == "string_pattern_mismatch":
        return f"{place}: {_PATTERN_RULES.get(str(problem['loc'][-1]), _TEXT_RULE)}"
    if kind == "string_unicode":
        return f"{place}: must be valid Unicode, without lone surrogates"
    if kind == "extra_forbidden":
        return f"{place}: unknown field"
    if kind in {"model_type", "model_attributes_type"}:
        return f"{place}: must be an object"
    return f"{place}: {problem['msg']}"


def _shown(part: str | int) -> str:
    """A field name fit for a message: names come from clients too."""
    text = str(part).encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_NAME_CHARS])


def _lenient_json(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequestError(f"body: not UTF-8 (byte {error.start})") from None
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_parse_int)
    except json.JSONDecodeError as error:
        raise BadRequestError(
            f"body: not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        ) from None
    except ValueError:
        raise BadRequestError("body: not JSON (NaN and Infinity are no JSON numbers)") from None
    except RecursionError:
        raise BadRequestError("body: nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else math.inf
