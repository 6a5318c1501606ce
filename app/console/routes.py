"""The routes under /console, and what stands before each of them: a session, where there is a token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.console.access import PATH, Viewer
from app.errors import CorewriteError, UnauthorizedError
from app.http.errors import retry_after

if TYPE_CHECKING:
    from app.console.access import Access
    from app.console.checkpoints_page import CheckpointsPage
    from app.console.pages import Pages
    from app.console.rollout_page import RolloutPage
    from app.console.service_page import ServicePage
    from app.console.try_page import TryPage

_MAX_LOGIN_BYTES = 4096
Handler = Callable[[Request, Viewer], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """The pages, wired in app/console/wiring.py."""

    pages: Pages
    access: Access
    trial: TryPage
    rollout: RolloutPage
    checkpoints: CheckpointsPage
    service: ServicePage

    def seen_by_viewers(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler that has whoever asks log in first, and shows errors as pages."""

        async def handle(request: Request) -> Response:
            viewer = self.access.viewer(request)
            if viewer is None:
                here = quote(request.url.path) if request.method == "GET" else PATH
                return self.pages.redirect(f"{PATH}/login?next={here}")
            return await self._answered(request, viewer, handler(request, viewer))

        return handle

    async def login_page(self, request: Request) -> Response:
        """GET /console/login."""
        return await self._login(request, _next(request.query_params.get("next")))

    async def log_in(self, request: Request) -> Response:
        """POST /console/login."""

        async def answer() -> Response:
            fields = await self.access.form(request, None, most=_MAX_LOGIN_BYTES)
            goes_on = _next(fields.get("next"))
            response = self.pages.redirect(goes_on)
            try:
                self.access.log_in(request, response, fields.get("token", ""))
            except UnauthorizedError as error:
                return await self._login(request, goes_on, problem=error)
            return response

        return await self._answered(request, None, answer())

    async def log_out(self, request: Request, viewer: Viewer) -> Response:
        """POST /console/logout."""
        await self.access.form(request, viewer, most=_MAX_LOGIN_BYTES)
        response = self.pages.redirect(f"{PATH}/login" if self.access.asks else PATH)
        self.access.log_out(response)
        return response

    async def static(self, name: str) -> Response:
        """GET /console/static/{name}: no secrets, and the page that asks for the token needs them."""
        return self.pages.file(name) or Response(status_code=404)

    async def _login(
        self, request: Request, goes_on: str, problem: UnauthorizedError | None = None
    ) -> Response:
        if not self.access.asks or self.access.viewer(request) is not None:
            return self.pages.redirect(goes_on)
        status, told = (problem.status, str(problem)) if problem else (200, None)
        page = await self.pages.page("login.html", None, http_status=status, next=goes_on, problem=told)
        page.headers.update(retry_after(problem) if problem else {})
        return page

    async def _answered(
        self, request: Request, viewer: Viewer | None, answer: Awaitable[Response]
    ) -> Response:
        try:
            return await answer
        except CorewriteError as error:
            request.scope["corewrite"].log["error"] = error.code
            response = await self.pages.page(
                "error.html", viewer, http_status=error.status, problem=str(error)
            )
            response.headers.update(retry_after(error))
            return response


def _next(path: str | None) -> str:
    """Where to go on after the login: nowhere but to pages of the console."""
    ours = path is not None and path.startswith(f"{PATH}/") and "\\" not in path
    # What no header may hold would fail as late as in the answer.
    return path if path is not None and ours and path.isascii() and path.isprintable() else PATH


def install_console(app: FastAPI, console: Console) -> None:
    """Add the routes to `app`."""
    router = APIRouter(include_in_schema=False)
    trial, rollout, checkpoints = console.trial, console.rollout, console.checkpoints
    pages: list[tuple[str, str, Handler]] = [
        ("GET", "", trial.show),
        ("POST", "", trial.ask),
        ("GET", "/rollout", rollout.show),
        ("GET", "/rollout/{act}", rollout.confirm),
        ("POST", "/rollout/{act}", rollout.act),
        ("GET", "/checkpoints", checkpoints.show),
        ("GET", "/checkpoints/{place}/{name}", checkpoints.one),
        ("GET", "/service", console.service.show),
        ("POST", "/logout", console.log_out),
    ]
    for method, path, handler in pages:
        router.add_api_route(
            PATH + path, console.seen_by_viewers(handler), methods=[method], response_model=None
        )
    router.add_api_route(f"{PATH}/login", console.login_page, methods=["GET"], response_model=None)
    router.add_api_route(f"{PATH}/login", console.log_in, methods=["POST"], response_model=None)
    router.add_api_route(PATH + "/static/{name}", console.static, methods=["GET"], response_model=None)
    app.include_router(router)
