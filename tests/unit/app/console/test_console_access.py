"""Who sees what, and which forms are believed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from console_client import TOKEN

from app.console.pages import POLICY
from app.console.session import COOKIE, LASTS_S

if TYPE_CHECKING:
    from console_client import Browser

PAGES = ["", "/rollout", "/checkpoints", "/service", "/checkpoints/folder/default"]


@pytest.mark.parametrize("page", PAGES)
def test_without_a_token_anybody_reads_and_is_told_how_to_act(anybody: Browser, page: str) -> None:
    answer = anybody.get(page)
    assert answer.status_code == 200
    assert "read only: set REWRITE_ADMIN_TOKEN" in answer.text
    assert "Log out" not in answer.text


@pytest.mark.parametrize("page", [*PAGES, "/rollout/kill"])
def test_with_a_token_a_stranger_is_asked_for_it_first(stranger: Browser, page: str) -> None:
    answer = stranger.get(page)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/login?next=/console{page}")
    assert answer.text == ""


@pytest.mark.parametrize("page", ["", "/rollout/kill", "/logout"])
def test_a_strangers_form_does_nothing_but_ask_for_the_token(stranger: Browser, page: str) -> None:
    answer = stranger.post(page, {"who": "eve", "why": "x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login?next=/console")


def test_whoever_gives_the_token_sees_all_and_can_leave(stranger: Browser) -> None:
    answer = stranger.post("/login", {"token": TOKEN, "next": "/console/rollout"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/rollout")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip() for part in cookie.split(";")[1:]} == {
        "HttpOnly",
        "SameSite=strict",
        "Path=/console",
        f"Max-Age={LASTS_S}",
    }
    assert stranger.get("/service").status_code == 200
    assert stranger.send("/logout").headers["location"] == "/console/login"
    assert stranger.get("/service").status_code == 303


def test_the_cookie_is_for_https_alone_where_the_browser_came_by_it(stranger: Browser) -> None:
    answer = stranger.post("/login", {"token": TOKEN}, origin="https://testserver")
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("given", ["wrong", "", "administrators ", "ü"])
def test_another_token_is_refused_and_logged(
    stranger: Browser, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "corewrite"):
        answer = stranger.post("/login", {"token": given})
    assert answer.status_code == 401
    assert "that is not the token" in answer.text
    assert "set-cookie" not in answer.headers
    (record,) = [one for one in caplog.records if one.message == "refused: not authorised"]
    assert record.fields == {"detail": "POST /console/login", "client": "testclient"}  # type: ignore[attr-defined]
    assert stranger.get("").status_code == 303


def test_whoever_guesses_is_not_listened_to_for_a_while_at_any_door(stranger: Browser) -> None:
    for _ in range(10):
        assert stranger.post("/login", {"token": "a guess"}).status_code == 401
    blocked = stranger.post("/login", {"token": TOKEN})
    assert blocked.status_code == 429
    assert "too many wrong tokens" in blocked.text
    assert int(blocked.headers["retry-after"]) >= 1
    assert "set-cookie" not in blocked.headers
    carried = {"authorization": f"Bearer {TOKEN}"}
    assert stranger.client.post("/admin/checkpoints/activate", headers=carried).status_code == 429


@pytest.mark.parametrize(
    "elsewhere",
    [
        *("https://evil.example", "//evil.example", "/console/../x\\", "/v1", "/consolex", "javascript:x"),
        *("/console/€", "/console/x\r\nset-cookie: a=b", "/console/\x00"),  # what no header may hold
    ],
)
def test_after_the_login_nobody_is_sent_elsewhere(stranger: Browser, elsewhere: str) -> None:
    assert stranger.post("/login", {"token": "a guess", "next": elsewhere}).status_code == 401
    assert stranger.post("/login", {"token": TOKEN, "next": elsewhere}).headers["location"] == "/console"


def test_whoever_is_in_is_not_asked_again(stranger: Browser, anybody: Browser) -> None:
    assert stranger.get("/login").status_code == 200
    assert stranger.log_in().get("/login?next=/console/service").headers["location"] == "/console/service"
    assert anybody.get("/login").headers["location"] == "/console"


def test_a_cookie_that_was_altered_is_none(stranger: Browser) -> None:
    stranger.log_in()
    cookie = stranger.client.cookies[COOKIE]
    ends, rest = cookie.split(".", 1)
    stranger.client.cookies.set(COOKIE, f"{int(ends) + 1}.{rest}", path="/console")
    stranger.client.cookies.delete(COOKIE, domain="testserver.local")
    assert stranger.get("").status_code == 303


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_form_without_the_token_of_the_session_is_refused(stranger: Browser, token: str | None) -> None:
    stranger.log_in()
    answer = stranger.post("", {"query": "x"} if token is None else {"query": "x", "form_token": token})
    assert answer.status_code == 403
    assert "this form is of another session" in answer.text
    assert stranger.send("", query="shoes").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
@pytest.mark.parametrize("path", ["", "/login"])
def test_a_form_of_another_site_is_refused(stranger: Browser, headers: dict[str, str], path: str) -> None:
    stranger.log_in()
    fields = {"query": "x", "token": TOKEN, "form_token": stranger.form_token()}
    answer = stranger.client.post(f"/console{path}", data=fields, headers=headers, follow_redirects=False)
    assert answer.status_code == 403
    assert "was not sent from the console" in answer.text


def test_a_browser_that_says_only_its_origin_is_believed(anybody: Browser) -> None:
    answer = anybody.client.post("/console", data={"query": "x"}, headers={"origin": "http://testserver"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"query": "x"}', "application/json", 422),
        (b"query=x", "text/plain", 422),
        (b"query=%ff", "application/x-www-form-urlencoded", 422),
        (b"&".join(b"f%d=1" % n for n in range(100)), "application/x-www-form-urlencoded", 422),
        (b"query=" + b"x" * 300_000, "application/x-www-form-urlencoded", 413),
    ],
)
def test_what_is_no_form_of_ours_is_refused(anybody: Browser, content: bytes, kind: str, status: int) -> None:
    headers = {"sec-fetch-site": "same-origin", "content-type": kind}
    answer = anybody.client.post("/console", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("page", [*PAGES, "/login", "/rollout/kill", "/checkpoints/registry/none"])
def test_every_answer_forbids_what_a_page_does_not_need(stranger: Browser, page: str) -> None:
    for answer in (stranger.get(page), stranger.log_in().get(page)):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        for word in ("<style", "style=", "onclick", "<script>", "http://", "https://"):
            assert word not in answer.text


def test_files_are_ours_alone_and_may_be_kept(stranger: Browser) -> None:
    for name, kind in (
        ("console.css", "text/css"),
        ("console.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = stranger.get(f"/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "immutable" in answer.headers["cache-control"]
    for name in ("nothing.css", "..%2fpages.py", "__init__.py"):
        assert stranger.get(f"/static/{name}").status_code == 404


def test_where_it_is_not_wanted_there_is_none(browse: Callable[..., Browser]) -> None:
    assert browse(console=False).get("").status_code == 404


def test_it_is_no_part_of_the_interface(anybody: Browser) -> None:
    assert not [path for path in anybody.client.get("/openapi.json").json()["paths"] if "console" in path]
