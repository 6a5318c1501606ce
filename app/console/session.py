"""Who has logged in: a signed cookie, and the token that each form of its session carries.

The key follows from the administrator's token, so that every replica knows a session of any other, and all
end where the token is changed. A session holds nothing but its own end and a number of its own.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

COOKIE = "corewrite_console"
LASTS_S = 8 * 3600
"""A working day."""
_COOKIE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has given the token.

    Args:
        ends: seconds since 1970.
        nonce: 32 hex digits, of this session alone.
    """

    ends: int
    nonce: str


class Sessions:
    """Begins sessions and knows them again.

    Args:
        token: of the administrators.
        now: seconds since 1970.
    """

    def __init__(self, token: str, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._key = hmac.digest(token.encode(), b"corewrite console session", sha256)

    def begin(self) -> str:
        """Return the cookie of a new session."""
        session = Session(int(self._now()) + LASTS_S, secrets.token_hex(16))
        return f"{session.ends}.{session.nonce}.{self._sign('session', session)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None where it is over, or none of ours."""
        match = _COOKIE.fullmatch(cookie)
        if match is None:
            return None
        session = Session(int(match[1]), match[2])
        known = hmac.compare_digest(match[3], self._sign("session", session))
        return session if known and self._now() < session.ends <= self._now() + LASTS_S else None

    def form_token(self, session: Session) -> str:
        """Return what each form of a session carries, which no other site can know."""
        return self._sign("form", session)

    def is_form_token(self, session: Session, given: str) -> bool:
        """Whether a form is one of this session's."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, what: str, session: Session) -> str:
        return hmac.new(self._key, f"{what} {session.ends} {session.nonce}".encode(), sha256).hexdigest()
