"""Every error the service raises, drawn once.

CorewriteError                      base; `code` is the wire word, `status` the HTTP status
├── BadRequestError        422      the request itself is malformed
├── OverloadedError        429      shed before any work; retry after `retry_after_s`
├── DrainingError          503      shutting down; retry elsewhere
├── UnauthorizedError      401      no credentials, or wrong ones
├── ForbiddenError         403      what is asked for is switched off here
├── CheckpointError        500      a checkpoint cannot be used; the message says which file and why
│   ├── UnknownCheckpointError 404  no such checkpoint
│   └── ProofError                  an engine does not compute what the checkpoint's trainer recorded
├── RegistryError                   the registry is out of reach, or not what it should be
│   ├── UnfitFileError              a file in it is missing, too large, or no plain file
│   └── AliasMovedError             somebody else has moved it first: look again
├── RolloutError           409      a rollout cannot do what is asked for in its state
│   ├── PlanError          422      a plan is none; the message names the field
│   └── StoreError         503      the store of rollouts is out of reach
├── RelevanceError         (never reaches a client: the stage it was for stays neutral)
├── ActivationError        409      a checkpoint was not activated: the one before serves on
└── EngineError            (never reaches a client: it becomes a `Reason` and the original query)
    ├── InputTooLongError
    ├── EngineUnavailableError
    │   ├── EngineBusyError
    │   └── EngineDeadError
    └── EngineFailedError
"""

from __future__ import annotations

from app.contracts.reasons import Reason


class CorewriteError(Exception):
    """Base of all errors raised on purpose."""

    code = "internal_error"
    status = 500


class BadRequestError(CorewriteError):
    """The request is malformed; the message names the field."""

    code = "invalid_request"
    status = 422


class OverloadedError(CorewriteError):
    """Too many requests are admitted already."""

    code = "overloaded"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(OverloadedError):
    """The server is shutting down and takes no new work."""

    code = "draining"
    status = 503


class CheckpointError(CorewriteError):
    """A checkpoint is missing, incomplete, altered, or of a shape this version cannot read."""

    code = "checkpoint"


class UnknownCheckpointError(CheckpointError):
    """There is no checkpoint of that id."""

    code = "unknown_checkpoint"
    status = 404


class ProofError(CheckpointError):
    """An engine does not compute what the checkpoint's trainer recorded."""


class RegistryError(CorewriteError):
    """The registry is out of reach, or holds something that it should not; the message says what."""


class AliasMovedError(RegistryError):
    """An alias has moved since it was looked at; nothing was changed."""


class UnfitFileError(RegistryError):
    """A file of the registry is missing, larger than allowed, or no plain file."""


class RolloutError(CorewriteError):
    """What is asked for cannot be done to a rollout in its state; the message says which it is in."""

    code = "rollout_refused"
    status = 409


class PlanError(RolloutError):
    """A plan of a rollout is malformed; the message names the field."""

    code = "invalid_plan"
    status = 422


class StoreError(RolloutError):
    """The store of rollouts is out of reach, or not of this version; the message says which."""

    code = "store_unavailable"
    status = 503


class RelevanceError(CorewriteError):
    """The relevance model cannot answer; the message says why."""


class ActivationError(CorewriteError):
    """A checkpoint was not activated, and the message says why; the one before serves on."""

    code = "activation_refused"
    status = 409


class UnauthorizedError(CorewriteError):
    """The request carries no credentials, or wrong ones."""

    code = "unauthorized"
    status = 401


class ForbiddenError(CorewriteError):
    """What is asked for is switched off here; the message says which setting allows it."""

    code = "forbidden"
    status = 403


class EngineError(CorewriteError):
    """The engine could not answer; `reason` is what the client is told."""

    reason = Reason.ENGINE_ERROR


class InputTooLongError(EngineError):
    """Prompt plus completion do not fit the model's window."""

    reason = Reason.INPUT_TOO_LONG


class EngineUnavailableError(EngineError):
    """The engine is not running or cannot take more."""

    reason = Reason.ENGINE_UNAVAILABLE


class EngineBusyError(EngineUnavailableError):
    """The engine's queue is full: a matter of load, not of health."""


class EngineDeadError(EngineUnavailableError):
    """The engine is gone and will not come back by itself."""


class EngineFailedError(EngineError):
    """The engine failed while computing this request."""
