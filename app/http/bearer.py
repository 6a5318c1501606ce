"""Who may change things: whoever sends the token of the settings. Refusals leave a line in the log."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from app.errors import BadRequestError, ForbiddenError, UnauthorizedError
from app.rollout.assignment import Arm
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.requests import Request

ARM_HEADER = "x-corewrite-arm"


@dataclass(frozen=True, slots=True)
class Bearer:
    """The token that is asked for; None: nobody has one."""

    token: SecretStr | None

    def require(self, request: Request) -> None:
        """Let a request pass that carries the token.

        Raises:
            ForbiddenError: there is no token to be had.
            UnauthorizedError: it carries none, or another one.
        """
        if self.carried_by(request):
            return
        fields = {"detail": f"{request.method} {request.url.path[:128]}", "client": _client(request)}
        LOGGER.warning("refused: not authorised", extra={"fields": fields})
        if self.token is None and request.headers.get("authorization") is not None:
            raise ForbiddenError("set REWRITE_ADMIN_TOKEN to allow what is under /admin")
        raise UnauthorizedError("send the header `authorization: Bearer <REWRITE_ADMIN_TOKEN>`")

    def carried_by(self, request: Request) -> bool:
        """Whether a request carries the token; compared in the same time whatever it carries."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self.token.get_secret_value().encode() if self.token else b""
        # latin-1 is how header bytes became text, so this gives them back.
        same = hmac.compare_digest(given.strip().encode("latin-1"), expected)
        return scheme.lower() == "bearer" and same and bool(expected)


def forced_arm(request: Request, bearer: Bearer) -> Arm | None:
    """Return the arm that a tester asks for; None: nobody does.

    Raises:
        ForbiddenError, UnauthorizedError: it is asked for without the token.
        BadRequestError: there is no such arm.
    """
    asked = request.headers.get(ARM_HEADER)
    if asked is None:
        return None
    bearer.require(request)
    if asked not in get_args(Arm):
        raise BadRequestError(f"{ARM_HEADER}: must be one of {', '.join(get_args(Arm))}")
    return cast("Arm", asked)


def _client(request: Request) -> str:
    return request.client.host if request.client else "unknown"
