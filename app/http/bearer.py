"""Who may change things: whoever sends the token of the settings. Refusals leave a line in the log."""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from app.errors import BadRequestError, ForbiddenError, UnauthorizedError
from app.http.errors import TooManyFailuresError
from app.http.rate import Buckets
from app.rollout.assignment import Arm
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import SecretStr
    from starlette.requests import Request

    from app.http.client import ClientNames
    from app.settings import Settings
    from app.telemetry import Metrics

_MAX_CLIENTS = 10_000  # who have sent a wrong token lately
ARM_HEADER = "x-corewrite-arm"


@dataclass(frozen=True, slots=True)
class Bearer:
    """The token that is asked for; None: nobody has one. `setting` names it; `failures` has wrong ones."""

    token: SecretStr | None
    setting: str
    failures: Buckets
    clients: ClientNames
    metrics: Metrics

    def require(self, request: Request) -> None:
        """Let a request pass that carries the token.

        Raises:
            ForbiddenError: there is no token to be had.
            TooManyFailuresError: its client has sent too many wrong ones.
            UnauthorizedError: it carries none, or another one.
        """
        given = request.headers.get("authorization")
        if given is None:
            self._note("missing", request)
            raise UnauthorizedError(f"send the header `authorization: Bearer <{self.setting}>`")
        scheme, _, said = given.partition(" ")
        self.check(request, said.strip() if scheme.lower() == "bearer" else "")

    def check(self, request: Request, said: str) -> None:
        """Let a request pass whose token is this, wherever it carries it; raises as `require` does."""
        client = self.clients.name(request.scope)
        if self.token is None:
            self._note("wrong", request)
            raise ForbiddenError(f"set {self.setting} to allow this")
        if (wait_s := self.failures.wait_s(client)) > 0:
            self._note("blocked", request)
            raise TooManyFailuresError("too many wrong tokens", retry_after_s=math.ceil(wait_s))
        if not self._is_token(said):
            self.failures.take(client)
            self._note("wrong", request)
            raise UnauthorizedError(
                f"that is not the token of {self.setting}: send `authorization: Bearer ...`"
            )

    def _is_token(self, said: str) -> bool:
        """Compared in the same time whatever is said, its length included."""
        expected = self.token.get_secret_value() if self.token else ""
        digests = [hashlib.sha256(one.encode("utf-8", "surrogatepass")).digest() for one in (said, expected)]
        return hmac.compare_digest(*digests) and bool(expected)

    def _note(self, cause: str, request: Request) -> None:
        self.metrics.refused_tokens.labels(cause).inc()
        fields = {
            "detail": f"{request.method} {request.url.path[:128]}",
            "client": self.clients.name(request.scope),
        }
        LOGGER.warning("refused: not authorised", extra={"fields": fields})


def bearers(
    settings: Settings, *, clients: ClientNames, metrics: Metrics, clock: Callable[[], float]
) -> tuple[Bearer, Bearer]:
    """Return who may administer, and who may report events; each has wrong tokens of its own."""

    def bearer(name: Literal["admin_token", "events_token"]) -> Bearer:
        failures = Buckets(
            per_s=settings.max_token_failures / 60,
            burst=settings.max_token_failures,
            max_clients=_MAX_CLIENTS,
            clock=clock,
        )
        return Bearer(getattr(settings, name), f"REWRITE_{name.upper()}", failures, clients, metrics)

    return bearer("admin_token"), bearer("events_token")


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
