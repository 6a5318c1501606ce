"""Templates to responses: escaped, and under a policy that lets a page load our own files alone."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.console.access import Viewer
    from app.console.threads import Threads

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # With no-referrer a browser would send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_SHORT = 12
NOTHING = "–"  # noqa: RUF001 -- a dash as a table has it
_LARGE = 1e4


class Pages:
    """Renders.

    Args:
        common: what every page shows of the service, asked for each time.
        threads: where pages are made: searches share the event loop, and do not wait for a page.
    """

    def __init__(self, common: Callable[[], dict[str, Any]], threads: Threads) -> None:
        self._common, self._threads = common, threads

    async def page(
        self, template: str, viewer: Viewer | None, *, section: str = "", http_status: int = 200, **facts: Any
    ) -> Response:
        """Return a page; `section` is the one of the navigation that it belongs to."""
        shown = {"viewer": viewer, "section": section, **self._common(), **facts}
        content = await self._threads.run(
            "the page", lambda: _templates().get_template(template).render(shown)
        )
        return Response(content, http_status, headers=HEADERS, media_type="text/html")

    def redirect(self, path: str) -> Response:
        """Return the answer that has a browser ask for another page."""
        return Response(status_code=303, headers={**HEADERS, "location": path})

    def file(self, name: str) -> Response | None:
        """Return a style sheet, script or image; None where there is none of that name."""
        if name not in _files():
            return None
        content, kind = _files()[name]
        # Pages ask for a file by what is in it: it never changes.
        headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
        return Response(content, headers=headers, media_type=kind)


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    folder = files("app.console") / "static"
    return {file.name: (file.read_bytes(), _TYPES[file.name.rpartition(".")[2]]) for file in folder.iterdir()}


@cache
def _templates() -> Environment:
    """One for all apps of a process: it keeps what it has compiled."""
    environment = Environment(
        loader=PackageLoader("app.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.filters |= {
        "short": lambda digest: digest[:_SHORT],
        "number": number,
        "brief": lambda value: number(value, digits=3),
        "signed": lambda value: number(value, sign=True),
        "percent": percent,
        "signed_percent": lambda value: percent(value, sign=True),
        "count": lambda value: f"{value:,.0f}",
        "moment": moment,
    }
    return environment


def _asset(name: str) -> str:
    return f"/console/static/{name}?{sha256(_files()[name][0]).hexdigest()[:_SHORT]}"


def number(value: float | None, *, sign: bool = False, digits: int = 4) -> str:
    """Return a number as a table shows it: so many significant digits, or a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0:
        return "0"
    plus = "+" if sign else ""
    shown = f"{value:{plus}.{digits}g}" if abs(value) < _LARGE else f"{value:{plus},.0f}"
    return shown.replace("-", "−")  # noqa: RUF001 -- a minus as wide as a digit


def percent(value: float | None, *, sign: bool = False) -> str:
    """Return a share as a table shows it."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:{'+' if sign and value else ''}.3g} %".replace("-", "−")  # noqa: RUF001 -- as above


def moment(at: str | datetime | None) -> str:
    """Return a moment as it is read, in UTC."""
    if at is None:
        return NOTHING
    found = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
