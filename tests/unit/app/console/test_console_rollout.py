"""The page of the rollout over a store of its own: what it shows, what it asks, what it does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_client import TOKEN
from console_site import PLAN, Site

from app.console.acts import ACTS
from app.rollout.store import RolloutStore

if TYPE_CHECKING:
    from console_client import Browser

WHO = {"who": "ann", "why": "because"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.fill_registry()
    return site


@pytest.fixture
def at(browse: Callable[..., Browser], site: Site) -> Callable[..., Browser]:
    """A browser at a replica of the site, logged in."""

    def start(**options: object) -> Browser:
        browser = browse(**{**site.options, "admin_token": TOKEN, **options})
        return browser.log_in() if options.get("admin_token", True) else browser

    return start


def acts(page: str) -> list[str]:
    return re.findall(r'href="/console/rollout/(\w+)"', page)


def seen(page: str) -> str:
    found = re.search(r'name="seen" value="([^"]*)"', page)
    assert found is not None
    return found[1]


def do(browser: Browser, act: str, **fields: str) -> str:
    """Confirm an act; return the page that follows."""
    told = seen(browser.get(f"/rollout/{act}").text)
    answer = browser.send(f"/rollout/{act}", seen=told, **{**WHO, **fields})
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"/console/rollout?done={act}"
    page: str = browser.get(f"/rollout?done={act}").text
    assert ACTS[act].done in page
    return page


def test_without_a_store_it_says_which_setting(stranger: Browser) -> None:
    assert "REWRITE_ROLLOUTS" in stranger.log_in().get("/rollout").text
    assert stranger.get("/rollout/kill").status_code == 403


def test_a_rollout_from_its_start_to_its_end(at: Callable[..., Browser], site: Site) -> None:
    browser = at()
    assert "No rollout yet" in (page := browser.get("/rollout").text)
    assert acts(page) == ["start", "kill"]
    start = browser.get("/rollout/start").text
    assert "gate: PASS" in start
    assert "[[steps]]" in start  # a plan to begin with
    page = do(browser, "start", checkpoint=site.digests["candidate"], plan=PLAN, name="autumn")
    assert acts(page) == ["rollback", "kill"]
    site.move("begin")
    page = browser.get("/rollout").text
    assert acts(page) == ["pause", "promote", "rollback", "kill"]
    assert "5 %" in browser.get("/rollout/pause").text  # of the clients, in words
    assert acts(do(browser, "pause")) == ["resume", "promote", "rollback", "kill"]
    do(browser, "resume")
    assert site.digests["candidate"][:12] in browser.get("/rollout/promote").text
    page = do(browser, "promote", why="it is <b>good</b>")
    assert acts(page) == ["start", "kill"]
    assert "it is &lt;b&gt;good&lt;/b&gt;" in page
    assert "<b>good" not in page
    assert [(order, who) for order, who, _ in site.history()] == [
        ("start", "ann"),
        ("begin", "controller"),
        ("pause", "ann"),
        ("resume", "ann"),
        ("finish", "ann"),
    ]


def test_what_has_moved_since_it_was_looked_at_is_asked_again(at: Callable[..., Browser], site: Site) -> None:
    browser = at()
    site.launch(looks=1)
    told = seen(browser.get("/rollout/promote").text)
    do(browser, "pause")
    answer = browser.send("/rollout/promote", seen=told, **WHO)
    assert answer.status_code == 409
    assert "has moved since you looked" in answer.text
    assert seen(answer.text) != told
    assert 'value="because"' in answer.text  # what was typed is not lost
    assert site.rollout().last.state == "paused"
    answer = browser.send("/rollout/rollback", seen=told, **WHO)  # the way back waits for nobody
    assert answer.status_code == 303
    assert site.rollout().last.state == "rolled_back"


def test_of_another_rollout_not_even_the_way_back_is_taken(at: Callable[..., Browser], site: Site) -> None:
    browser = at()
    site.launch(looks=1)
    assert browser.send("/rollout/rollback", seen="0/1", **WHO).status_code == 409
    assert browser.send("/rollout/rollback", **WHO).status_code == 409
    assert site.rollout().last.state == "running"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"who": ""}, "who: must have 1 to 200 characters"),
        ({"why": "  "}, "why: must have 1 to 200 characters"),
        ({"why": "x" * 201}, "why: must have 1 to 200 characters"),
        ({"why": "a\x00b"}, "all of them visible"),
        ({"checkpoint": ""}, "checkpoint: must have 1 to 200 characters"),
        ({"checkpoint": "nothing"}, "no such checkpoint"),
        ({"checkpoint": "default", "plan": PLAN}, "2 checkpoints are called that"),
        ({"checkpoint": "week-2-long"}, "FAIL of the gate, and only PASS moves on"),
        ({"plan": "steps = 3"}, "steps"),
        ({"plan": "x" * 40_000}, "plan: must have at most 32768 characters"),
        ({"name": "a b"}, "must match"),
    ],
)
def test_what_cannot_be_started_says_why_and_keeps_what_was_typed(
    at: Callable[..., Browser], site: Site, fields: dict[str, str], says: str
) -> None:
    asked = {"checkpoint": "candidate", "plan": PLAN, **WHO, **fields}
    answer = at().send("/rollout/start", seen="", **asked)
    assert answer.status_code in {404, 409, 422}
    assert says in answer.text
    with site.store() as database:
        assert RolloutStore(database).deployment().latest is None


def test_ungated_it_starts_what_has_not_passed(at: Callable[..., Browser], site: Site) -> None:
    do(at(), "start", checkpoint="week-2-long", plan=PLAN, ungated="yes")
    assert site.rollout().checkpoint == site.digests["week-2-long"]


def test_killed_it_says_so_on_every_page_until_it_is_ended(at: Callable[..., Browser], site: Site) -> None:
    browser = at()
    page = do(browser, "kill", why="it burns")
    assert site.killed()
    assert acts(page) == ["start", "revive"]
    assert "by ann: it burns" in page
    for path in ("", "/service", "/checkpoints"):
        assert "Everybody gets the original from this replica" in browser.get(path).text
    assert browser.client.post("/v1/rewrite", json={"query": "x"}).json()["reason"] == "disabled"
    do(browser, "revive")
    assert not site.killed()


def test_whoever_kills_in_a_hurry_stops_this_replica_whatever_is_wrong(
    at: Callable[..., Browser], site: Site
) -> None:
    browser = at()
    (site.folder / "rollouts.db").write_bytes(b"no database any more" * 100)
    page = browser.get("/rollout").text
    assert "The store is out of reach" in page
    assert "kill" in acts(page)
    assert browser.get("/rollout/kill").status_code == 200
    answer = browser.send("/rollout/kill", seen="", **WHO)
    assert answer.status_code == 503
    assert "This replica gives everybody the original; others were not told." in answer.text
    assert browser.client.post("/v1/rewrite", json={"query": "x"}).json()["reason"] == "disabled"
    assert "revive" in acts(browser.get("/rollout").text)  # it can be ended here


def test_a_kill_without_a_reason_stops_nothing(at: Callable[..., Browser]) -> None:
    browser = at()
    answer = browser.send("/rollout/kill", who="ann", why="")
    assert answer.status_code == 422
    assert "others were not told" not in answer.text
    assert "Killed." not in browser.get("").text


def test_read_only_it_shows_all_and_does_nothing(at: Callable[..., Browser], site: Site) -> None:
    site.launch(looks=1)
    browser = at(admin_token=None)
    page = browser.get("/rollout").text
    assert "Read only here" in page
    assert "autumn" in page
    assert acts(page) == []
    for act in ACTS:
        assert browser.get(f"/rollout/{act}").status_code == 403
        assert browser.post(f"/rollout/{act}", WHO).status_code == 403
    assert not site.killed()
    assert site.rollout().last.state == "running"


def test_evidence_is_shown_as_it_grew(at: Callable[..., Browser], site: Site) -> None:
    site.launch(looks=2)
    page = at().get("/rollout").text
    assert page.count('<svg class="chart"') == 4
    tables = page.split('aria-label="Looks at changed"')[1].split("</table>")[0]
    assert tables.count("<tr>") == 5  # a head, and as many looks as there were
    widths = [len(line.split()) for line in re.findall(r'class="gain" points="([^"]+)"', page)]
    assert widths == [4, 4, 4, 4]
    assert "canary against stable" in page
    assert 'aria-current="step"' in page


def test_a_query_that_was_tried_counts_nowhere(at: Callable[..., Browser], site: Site) -> None:
    site.launch(looks=1)
    browser = at(deadline_ms=20_000)
    before = re.findall(r'<td class="n">([\d,]+)</td><td><svg class="gauge"', browser.get("/rollout").text)
    for arm in ("stable", "canary", "holdout"):
        assert browser.send("", query="in blue", arm=arm).status_code == 200
    browser.client.portal.call(browser.client.app.state.rollouts.counter.flush)  # type: ignore[union-attr,attr-defined]
    after = re.findall(r'<td class="n">([\d,]+)</td><td><svg class="gauge"', browser.get("/rollout").text)
    assert before == after
    assert len(before) == 4


def test_there_is_nothing_else_to_do(at: Callable[..., Browser]) -> None:
    assert at().get("/rollout/finish").status_code == 422
