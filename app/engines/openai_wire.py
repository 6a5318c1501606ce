"""What a vLLM fleet answers over HTTP: the fields that are read, and what stands for each way to fail."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.errors import (
    EngineBusyError,
    EngineError,
    EngineFailedError,
    EngineUnavailableError,
    InputTooLongError,
)

# In vLLM's words. The last is what it says of a prompt that fills the window: it had cut `max_tokens` to fit.
TOO_LONG = ("context length", "maximum model length", "max_model_len", "max_tokens must be at least 1")
# The admission controls of vLLM and of Ray Serve say 503 when their queues are full, not 429.
FULL = ("currently busy", "backlog limit", "backpressure")


def _token_of(key: object) -> object:
    return int(key.removeprefix("token_id:")) if isinstance(key, str) else key


# vLLM writes -9999 for minus infinity. A log-softmax may end a rounding error above 0; a logit, far above.
# NaN is within no bounds.
Logprob = Annotated[float, Field(gt=-9999.0, le=1e-3)]
TokenId = Annotated[int, Field(ge=0)]
TokenKey = Annotated[TokenId, BeforeValidator(_token_of)]


class Wire(BaseModel):
    """A part of an answer; fields without a name here are not looked at."""

    model_config = ConfigDict(strict=True)


class Logprobs(Wire):
    """Of one choice, by position; `top_logprobs` has the most probable tokens and the one that was drawn."""

    token_logprobs: list[Logprob]
    top_logprobs: list[dict[TokenKey, Logprob]]


class Choice(Wire):
    """One completion."""

    index: int
    token_ids: list[TokenId] = Field(min_length=1)
    logprobs: Logprobs
    finish_reason: Literal["stop", "length"]


class Answer(Wire):
    """To POST /v1/completions."""

    choices: list[Choice]


class Card(Wire):
    """A model or an adapter; adapters name no window."""

    id: str
    max_model_len: int | None = None


class Models(Wire):
    """To GET /v1/models."""

    data: list[Card]


Read = TypeVar("Read", bound=Wire)


def parsed(kind: type[Read], body: bytes) -> Read:
    """Read a JSON answer; raises EngineFailedError, which names the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise EngineFailedError(f"the fleet's answer: {field}: {first['msg']}") from error


def choices_of(body: bytes, *, count: int) -> list[Choice]:
    """The choices of an answer that should have `count` of them, in order; raises EngineFailedError."""
    choices = sorted(parsed(Answer, body).choices, key=lambda choice: choice.index)
    if [choice.index for choice in choices] != list(range(count)):
        raise EngineFailedError(f"the fleet's answer: choices: {len(choices)}, or misnumbered, not {count}")
    for choice in choices:
        for name in ("token_logprobs", "top_logprobs"):
            length = len(getattr(choice.logprobs, name))
            if length != len(choice.token_ids):
                raise EngineFailedError(
                    f"the fleet's answer: choices.{choice.index}.logprobs.{name}: "
                    f"{length} for {len(choice.token_ids)} token_ids"
                )
    return choices


def detail(text: str) -> str:
    """What of an answer's text fits into a message."""
    return " ".join(text.split())[:300]


def refusal(status: int, text: str) -> EngineError:
    """The engine error that stands for an HTTP status other than 200, given the answer's text."""
    kind: type[EngineError] = EngineFailedError
    hint = ""
    match status:
        case 400 | 413 | 422 if any(words in text for words in TOO_LONG):
            kind = InputTooLongError
        case 401 | 403 | 407:
            kind, hint = EngineUnavailableError, " (check the API key)"
        case 404:
            kind, hint = EngineUnavailableError, " (check the URL and the model's name)"
        case 429:
            kind = EngineBusyError
        case 503 if any(words in text for words in FULL):
            kind = EngineBusyError
        case 408 | 502 | 503 | 504:
            kind = EngineUnavailableError
        case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            # Not followed: the API key would go along to wherever it leads.
            kind, hint = EngineUnavailableError, " (set the URL to where this leads)"
    return kind(f"the fleet answered {status}{hint}: {detail(text)}")


def mapped(error: Exception) -> EngineError:
    """The engine error that stands for an exception of httpx's."""
    import httpx  # noqa: PLC0415 -- only where it is installed

    if isinstance(error, EngineError):
        return error
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, httpx.PoolTimeout):
        return EngineBusyError(f"all connections to the fleet are taken: {message}")
    # What reaches no fleet, or brings no HTTP back. The rest is an answer that cannot be read.
    unreachable = (httpx.TransportError, httpx.InvalidURL)
    return EngineUnavailableError(message) if isinstance(error, unreachable) else EngineFailedError(message)
