"""What docs/security.md claims: its tests are there, each route is decided on, each dependency pinned."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from fakes import FakeCheckpoint, FakeEngine
from fastapi.routing import APIRoute
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import SecretStr
from starlette.routing import Route
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
# What anybody who reaches the port may call. A new route belongs here, or under /admin or /v1/admin.
OPEN = {
    *("/v1/rewrite", "/v1/rewrite/batch", "/v1/signals", "/v1/events"),
    *("/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"),
}
LOCK = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    )
}

app = create_app(
    Settings(relevance="none", rollouts="sqlite://", exposure_key="k" * 32, admin_token=SecretStr("right")),
    engine=FakeEngine(),
    checkpoint=FakeCheckpoint(),
)
DOCUMENT = app.openapi()
GUARDED = sorted(
    (path, method.upper())
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    if path not in OPEN
)


def test_every_route_is_open_on_purpose_or_under_admin() -> None:
    with TestClient(app) as client:
        served = {route.path for route in app.routes if isinstance(route, APIRoute | Route)}
        assert {path for path, _ in GUARDED} <= {*served, *DOCUMENT["paths"]}
        assert not {path for path in served | set(DOCUMENT["paths"]) if not is_guarded(path)} - OPEN
        assert client.get("/livez").status_code == 200


def is_guarded(path: str) -> bool:
    return path.startswith(("/admin/", "/v1/admin/"))


def test_there_is_something_to_guard() -> None:
    assert len(GUARDED) >= 8
    assert all(is_guarded(path) for path, _ in GUARDED)


@pytest.mark.parametrize(("path", "method"), GUARDED)
def test_what_is_under_admin_asks_for_the_token_first(path: str, method: str) -> None:
    """Before it reads the body: nonsense with a token is refused as nonsense, without one as a stranger's."""
    client = TestClient(app)
    wrong = {"authorization": "Bearer wrong"}
    assert client.request(method, path, content=b"nonsense").status_code == 401
    assert client.request(method, path, content=b"nonsense", headers=wrong).status_code in {401, 429}
    assert DOCUMENT["paths"][path][method.lower()]["security"] == [{"admin": []}]


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", PAGE)
    assert len(named) > 20
    for name, path in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"


def test_each_row_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [STRIDE]+ \|", line)]
    assert len(rows) > 15
    assert not [row for row in rows if "[`test_" not in row]


def serving_set() -> set[str]:
    """Distributions that `pip install corewrite` brings, those of dependencies too."""
    waiting, found = ["corewrite"], set()
    while waiting:
        for text in requires(waiting.pop()) or ():
            wanted = Requirement(text)
            name = canonicalize_name(wanted.name)
            if name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                found.add(name)
                waiting.append(name)
    return found


def test_all_that_serves_is_pinned() -> None:
    brought = serving_set()
    assert "starlette" in brought, "dependencies of dependencies count"
    assert brought <= set(LOCK)
    assert all(re.fullmatch(r"[\w.!+]+", version) for version in LOCK.values())


def test_nothing_comes_from_anywhere_but_the_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(text for extra in extras for text in extra)]
    assert not [text for text in wanted if Requirement(text).url]
    assert not [line for line in LOCK if "@" in line or "/" in line]
