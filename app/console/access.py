"""Who may see the console, and which forms are believed.

Where REWRITE_ADMIN_TOKEN is set, whoever gives it once has a session, and nobody else sees anything. Where it
is not, everybody sees what only reads, and nobody can change anything. A form is believed that a browser says
to come from this console itself, and within a session only with the session's token in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from app.console.session import COOKIE, LASTS_S, Session, Sessions
from app.errors import BadRequestError, ForbiddenError
from app.http.body import read_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from app.http.bearer import Bearer

PATH = "/console"
FORM_TOKEN = "form_token"  # noqa: S105 -- the name of a field
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 40


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whoever asks for a page.

    Args:
        session: of one who has logged in; None: anybody, where there is no token.
        form_token: to be put into forms; "" without a session.
    """

    session: Session | None = None
    form_token: str = ""

    @property
    def may_act(self) -> bool:
        """Whether they may change anything, and choose an arm."""
        return self.session is not None


class Access:
    """Lets in, or not.

    Args:
        bearer: what administrators carry; a wrong token counts there, wherever it is sent.
        timeout_s: seconds a form may take to arrive.
    """

    def __init__(self, bearer: Bearer, *, timeout_s: float) -> None:
        token = bearer.token.get_secret_value() if bearer.token else ""
        self._bearer, self._sessions = bearer, Sessions(token) if token else None
        self._timeout_s = timeout_s

    @property
    def asks(self) -> bool:
        """Whether there is a token to be asked for."""
        return self._sessions is not None

    def viewer(self, request: Request) -> Viewer | None:
        """Return who asks; None: somebody who has to log in."""
        if self._sessions is None:
            return Viewer()
        session = self._sessions.read(request.cookies.get(COOKIE, ""))
        return None if session is None else Viewer(session, self._sessions.form_token(session))

    async def form(self, request: Request, viewer: Viewer | None, *, most: int) -> dict[str, str]:
        """Return the fields of a form; lines end as in Unix.

        Raises:
            ForbiddenError: another site, or another session, has sent it.
            BadRequestError, BodyTooLargeError, BodyTimeoutError: it is no form, or not one of ours.
        """
        _require_own(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise BadRequestError(f"body: must be {_FORM}")
        body = await read_body(request, max_bytes=most, timeout_s=self._timeout_s)
        try:
            pairs = parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
            )
        except ValueError as error:
            raise BadRequestError("body: not a form in UTF-8") from error
        fields = {name: value.replace("\r\n", "\n") for name, value in pairs}
        if viewer is not None and viewer.session is not None and self._sessions is not None:
            given = fields.pop(FORM_TOKEN, "")
            if not self._sessions.is_form_token(viewer.session, given):
                raise ForbiddenError("this form is of another session: load the page anew, and try again")
        return fields

    def log_in(self, request: Request, response: Response, given: str) -> None:
        """Begin a session, in the cookie of a response.

        Raises:
            ForbiddenError: there is no token to be had.
            UnauthorizedError: that is not the token, or its client has sent too many wrong ones.
        """
        self._bearer.check(request, given)
        if self._sessions is None:
            return
        response.set_cookie(
            COOKIE,
            self._sessions.begin(),
            max_age=LASTS_S,
            path=PATH,
            secure=_came_by_https(request),
            httponly=True,
            samesite="strict",
        )

    def log_out(self, response: Response) -> None:
        """End the session in this browser."""
        response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")


def _require_own(request: Request) -> None:
    """Raise ForbiddenError unless a browser says that the form is of the site that it is sent to.

    What a browser says of the site (Fetch Metadata) is believed whatever a proxy has made of the host; one
    that does not say it compares hosts. Every browser sends one of the two with a form.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    else:
        own = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise ForbiddenError("this form was not sent from the console: a browser's Origin must be this site")


def _came_by_https(request: Request) -> bool:
    # Behind a proxy that ends TLS the connection is plain, but the browser tells the scheme that it has used.
    return "https" in {request.url.scheme, urlsplit(request.headers.get("origin", "")).scheme}
