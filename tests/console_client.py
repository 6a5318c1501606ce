"""A browser without a screen: it keeps cookies, and says where its forms come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
    from starlette.testclient import TestClient

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
