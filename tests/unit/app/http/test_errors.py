from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeCheckpoint
from starlette.testclient import TestClient

import app.errors
from app.errors import CorewriteError, EngineError
from app.http import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI


def subclasses(cls: type[CorewriteError]) -> Iterator[type[CorewriteError]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("error", sorted(subclasses(CorewriteError), key=lambda cls: cls.__name__))
def test_every_error_has_a_wire_word_and_a_status_that_openapi_knows(error: Any) -> None:
    assert error.__module__ in {app.errors.__name__, errors.__name__}, (
        "draw new errors in one of the two trees"
    )
    if issubclass(error, EngineError):
        assert error.reason
        return
    assert error.status in {401, 403, 404, 408, 409, 413, 422, 429, 500, 503}
    assert error.code.islower()


def test_a_bug_is_500_in_the_one_shape_and_tells_nothing(
    make_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="corewrite")
    cannot_be_written = FakeCheckpoint(id=object())
    with TestClient(make_app(checkpoint=cannot_be_written), raise_server_exceptions=False) as client:
        response = client.post("/v1/rewrite", json={"query": "rn icu"})
        assert response.status_code == 500
        assert response.json() == {
            "error": "internal_error",
            "detail": "the server failed; the log says why",
        }
        assert 'outcome="failed",reason="none"} 1.0' in client.get("/metrics").text
    assert [r.fields["status"] for r in caplog.records if r.getMessage() == "request"] == [500]


def test_unknown_routes_and_methods_have_the_one_shape(client: TestClient) -> None:
    for method, path, status, word in [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/v1/rewrite/", 404, "not_found"),
        ("GET", "/v1/rewrite", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
    ]:
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"] == word
        assert set(response.json()) == {"error", "detail"}
    assert client.get("/v1/rewrite").headers["allow"] == "POST"
