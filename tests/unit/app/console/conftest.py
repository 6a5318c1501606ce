"""The console as a browser sees it that keeps cookies and says where its forms come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

TOKEN = "administrators"  # noqa: S105 -- of tests
OWN = {"sec-fetch-site": "same-origin"}


@dataclass
class Browser:
    client: TestClient

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        return self.client.get(f"/console{path}", headers=headers, follow_redirects=False)

    def post(self, path: str = "", fields: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        return self.client.post(
            f"/console{path}", data=fields or {}, headers={**OWN, **headers}, follow_redirects=False
        )

    def form_token(self, page: str = "") -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.get(page).text)
        assert found is not None
        return found[1]

    def send(self, path: str, **fields: str) -> httpx.Response:
        """A form with its token."""
        return self.post(path, {"form_token": self.form_token(), **fields})

    def log_in(self) -> Browser:
        assert self.post("/login", {"token": TOKEN}).status_code == 303
        return self


@pytest.fixture
def browse(make_app: Callable[..., FastAPI]) -> Iterator[Callable[..., Browser]]:
    """A browser at an app; keyword arguments are settings, or fakes."""
    with ExitStack() as stack:

        def start(**options: object) -> Browser:
            return Browser(stack.enter_context(TestClient(make_app(**options))))

        yield start


@pytest.fixture
def anybody(browse: Callable[..., Browser]) -> Browser:
    """At a console without a token."""
    return browse(deadline_ms=20_000, signals_deadline_ms=20_000)


@pytest.fixture
def stranger(browse: Callable[..., Browser]) -> Browser:
    """At a console with a token, which they do not have yet."""
    return browse(admin_token=TOKEN, deadline_ms=20_000, signals_deadline_ms=20_000)
