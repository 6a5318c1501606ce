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
        client = self.clients.name(request.scope)
        if given is None:
            self._note("missing", request, client)
        elif self.token is None:
            self._note("wrong", request, client)
            raise ForbiddenError(f"set {self.setting} to allow this")
        elif (wait_s := self.failures.wait_s(client)) > 0:
            self._note("blocked", request, client)
            raise TooManyFailuresError("too many wrong tokens", retry_after_s=math.ceil(wait_s))
        elif self._is_token(given):
            return
        else:
            self.failures.take(client)
            self._note("wrong", request, client)
        raise UnauthorizedError(f"send the header `authorization: Bearer <{self.setting}>`")

    def _is_token(self, given: str) -> bool:
        """Compared in the same time whatever is given, its length included."""
        scheme, _, said = given.partition(" ")
        expected = self.token.get_secret_value() if self.token else ""
        # latin-1 is how header bytes became text, so this gives them back.
        digests = (hashlib.sha256(said.strip().encode("latin-1")), hashlib.sha256(expected.encode()))
        same = hmac.compare_digest(digests[0].digest(), digests[1].digest())
        return scheme.lower() == "bearer" and same and bool(expected)

    def _note(self, cause: str, request: Request, client: str) -> None:
        self.metrics.refused_tokens.labels(cause).inc()
        fields = {"detail": f"{request.method} {request.url.path[:128]}", "client": client}
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
