"""The console in a real Chromium: each page, its flows by keyboard, both schemes, wide and narrow.

Pictures of every page are kept in the folder of COREWRITE_ARTIFACTS, else in a temporary one.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from console_site import TOKEN, Site
from waiting import wait_until

from app.http.server import make_server
from app.main import create_app
from app.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
SIZES = {1280: 900, 360: 740}
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- what is tested here alone

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a rollout in its second step; tests take copies of it."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.fill_registry()
    site.launch(looks=6)
    return site


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    server = make_server(create_app(settings), settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, within_s=60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


class Visit:
    """A page of the console, and what went wrong in it."""

    def __init__(self, page: Page, url: str, shots: Path) -> None:
        self.page, self.url, self._shots = page, url, shots
        self.wrong: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"asked another host: {request.url}")

    def go(self, path: str = "") -> Page:
        self.page.goto(f"{self.url}/console{path}")
        return self.page

    def log_in(self) -> None:
        self.go()
        assert self.focused() == "token"  # whoever comes may type at once
        self.type(TOKEN, "Enter")
        self.page.wait_for_selector("#query")

    def type(self, text: str, *keys: str) -> None:
        self.page.keyboard.type(text)
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        """The id of what has the focus, else its words."""
        found: str = self.page.evaluate(
            "document.activeElement.id || document.activeElement.innerText || document.activeElement.tagName"
        )
        return found.strip()

    def tab_to(self, what: str) -> None:
        """Go on with the tabulator until it has the focus, and see that one sees where one is."""
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if self.focused() == what:
                outline = self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid"
                return
        pytest.fail(f"the tabulator does not come to {what}")

    def shoot(self, name: str) -> None:
        scheme = (
            "dark" if self.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
        )
        width = self.page.viewport_size["width"]  # type: ignore[index]
        self.page.screenshot(path=self._shots / f"{name}-{scheme}-{width}.png", full_page=True)
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width, (
            f"{name} is wider than {width}"
        )


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("COREWRITE_ARTIFACTS")
    folder = Path(named) / "console" if named else tmp_path_factory.mktemp("console")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visit(chromium: Browser, shots: Path) -> Iterator[Callable[..., Visit]]:
    """Visits in which nothing may go wrong: no error, no request elsewhere, nothing that is forbidden."""
    visits: list[Visit] = []

    def start(url: str, *, scheme: Any = "light", width: int = 1280, **options: Any) -> Visit:
        size: Any = {"width": width, "height": SIZES[width]}
        context = chromium.new_context(viewport=size, color_scheme=scheme, **options)
        context.set_default_timeout(30_000)
        visits.append(Visit(context.new_page(), url, shots))
        return visits[-1]

    yield start
    for one in visits:
        one.page.context.close()
        assert one.wrong == []


@pytest.fixture
def site(counted: Site, tmp_path: Path) -> Site:
    """A copy of the counted one."""
    shutil.copytree(counted.folder, tmp_path, dirs_exist_ok=True)
    return Site(tmp_path, counted.digests)


@pytest.fixture
def replica(site: Site) -> Iterator[str]:
    with served(Settings(**site.options, relevance="none")) as url:
        yield url


@pytest.fixture(scope="module")
def as_shipped() -> Iterator[str]:
    """The default checkpoint and the default relevance model, without a token."""
    with served(Settings(port=0, relevance="onnx", deadline_ms=20_000, signals_deadline_ms=20_000)) as url:
        yield url


def test_the_first_click_shows_a_rewrite_and_two_rankings(
    as_shipped: str, visit: Callable[..., Visit]
) -> None:
    one = visit(as_shipped)
    page = one.go()
    one.shoot("try-before")
    one.tab_to("query")
    one.type("", "Enter")
    page.wait_for_selector("#rankings")
    assert page.input_value("#query") == "in blue"  # what was asked stays there
    assert "blue" in page.inner_text('[aria-label="Rewrites"] tbody')
    old, new = (
        page.locator(f'[aria-label="{name}"] tbody .text').all_inner_texts()
        for name in ("Original ranking", "Ranking with the rewrites")
    )
    assert sorted(old) == sorted(new)
    assert old != new
    assert "Blue" in new[0]
    assert "Shoes" in new[0]
    one.shoot("try")


def test_with_nothing_to_rewrite_both_rankings_are_the_same(
    as_shipped: str, visit: Callable[..., Visit]
) -> None:
    one = visit(as_shipped)
    page = one.go("?example=nothing")
    page.click("text=Rewrite and rank")
    page.wait_for_selector("#rankings")
    assert "no_change" in page.inner_text("main")
    assert "both rankings are identical" in page.inner_text("main")
    one.shoot("neutral")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_every_page_fits_is_labelled_and_can_be_read(
    replica: str, site: Site, visit: Callable[..., Visit], scheme: str, width: int
) -> None:
    one = visit(replica, scheme=scheme, width=width)
    one.go()
    one.shoot("login")
    one.log_in()
    one.page.click("text=Rewrite and rank")
    one.page.wait_for_selector("#rankings")
    one.shoot("try-logged-in")
    for name, path in (
        ("rollout", "/rollout"),
        ("confirm", "/rollout/kill"),
        ("start", "/rollout/start"),
        ("checkpoints", "/checkpoints"),
        ("checkpoint", f"/checkpoints/registry/{site.digests['week-2-long']}"),
        ("service", "/service"),
    ):
        one.go(path)
        one.shoot(name)
        assert one.page.evaluate(UNLABELLED) == []
        assert one.page.evaluate(FAINT) == []
        assert one.page.locator("h1").count() == one.page.locator("main").count() == 1


# Fields without a label, pictures without a name, tables whose heads say of nothing what they head.
UNLABELLED = """() => [
  ...[...document.querySelectorAll("input:not([type=hidden], [hidden]), textarea, select")]
    .filter((e) => !e.labels.length),
  ...document.querySelectorAll("img:not([alt]), svg:not([aria-hidden], [aria-label], svg svg)"),
  ...document.querySelectorAll("th:not([scope])"),
  ...[...document.querySelectorAll("a, button")].filter((e) => e.checkVisibility() && !e.innerText.trim()),
].map((e) => e.outerHTML.slice(0, 120))"""

# Words with less contrast than 4.5 to 1 to what is behind them (WCAG 2.2, 1.4.3).
FAINT = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const bytes = (color) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    const layers = [];
    for (let one = e; one; one = one.parentElement)
      layers.unshift(bytes(getComputedStyle(one).backgroundColor));
    const over = (under, [r, g, b, a]) => [r, g, b].map((c, i) => c * (a / 255) + under[i] * (1 - a / 255));
    return layers.reduce(over, [255, 255, 255]);
  };
  const said = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((e) => said(e) && e.checkVisibility() && !e.closest(".unseen, .skip, option"))
    .map((e) => { const style = getComputedStyle(e);
      const ink = light(bytes(e.closest("svg") ? style.fill : style.color));
      const [one, two] = [ink, light(behind(e))].sort((a, b) => b - a);
      return [(one + 0.05) / (two + 0.05), e.outerHTML.slice(0, 120)]; })
    .filter(([contrast]) => contrast < 4.5);
}"""


def test_pause_promote_and_kill_by_keyboard_alone(
    replica: str, site: Site, visit: Callable[..., Visit]
) -> None:
    one = visit(replica)
    one.log_in()

    def confirmed(button: str, act: str, says: str) -> None:
        one.go("/rollout")
        one.tab_to(f"{button}…")
        one.type("", "Enter")
        one.page.wait_for_url(f"**/rollout/{act}")
        assert says in one.page.inner_text("#says")
        one.tab_to("who")
        one.type("ann", "Tab")
        assert one.focused() == "why"
        one.type(f"{act} <i>because</i>")
        one.tab_to(button)
        one.type("", "Enter")
        one.page.wait_for_url(f"**/rollout?done={act}")
        assert f"{act} <i>because</i>" in one.page.inner_text("main")

    confirmed("Pause", "pause", "keeps its share (25 % of the clients)")
    assert site.rollout().last.state == "paused"
    confirmed("Kill", "kill", "Everybody gets the original")
    assert site.killed()
    assert one.page.inner_text("#banner").startswith("Killed.")
    one.shoot("killed")
    confirmed("End the kill", "revive", "Rewrites are shown again")
    assert not site.killed()
    confirmed("Promote", "promote", "All clients get checkpoint")
    assert site.rollout().last.state == "promoted"
    assert [line[:2] for line in site.history()][-2:] == [("pause", "ann"), ("finish", "ann")]
    one.shoot("promoted")


def test_rolled_back_without_javascript_and_started_again(
    replica: str, site: Site, visit: Callable[..., Visit]
) -> None:
    one = visit(replica, java_script_enabled=False)
    page = one.go("/rollout")
    page.fill("#token", TOKEN)
    page.click("main button")
    assert page.locator("#refresh").is_hidden()
    page.click("text=Roll back…")
    page.fill("#who", "bo")
    page.fill("#why", "it burns")
    page.click("main button")
    assert "Rolled back: everybody has stable." in page.inner_text("main")
    assert site.history()[-1] == ("rollback", "bo", "it burns")
    page.click("text=Start a rollout…")
    assert "gate: PASS" in page.inner_text("#checkpoint option:checked")
    page.fill("#who", "bo")
    page.fill("#why", "once more")
    page.fill("#name", "winter")
    page.click("main button")
    assert site.rollout().id == "winter"
    assert site.history() == [("start", "bo", "once more")]


def test_cancelled_nothing_is_done(replica: str, site: Site, visit: Callable[..., Visit]) -> None:
    one = visit(replica)
    one.log_in()
    page = one.go("/rollout/rollback")
    page.click("main button")  # the browser itself asks for who and why
    assert page.url.endswith("/rollout/rollback")
    page.click("text=Cancel")
    page.wait_for_url("**/console/rollout")
    assert site.rollout().last.state == "running"


def test_the_page_follows_the_rollout_unless_it_is_told_not_to(
    replica: str, site: Site, visit: Callable[..., Visit]
) -> None:
    one = visit(replica)
    one.log_in()
    page = one.go("/rollout")
    page.clock.install()
    page.reload()
    page.locator("#looks-changed summary").click()
    page.locator("h1").click()
    site.move("pause")
    page.clock.run_for(6_000)
    page.wait_for_selector("#summary >> text=paused")
    assert page.locator("#looks-changed").get_attribute("open") is not None  # what was unfolded stays so
    assert page.inner_text("#refreshed").startswith("as of ")
    page.click("#refresh")
    assert page.get_attribute("#refresh", "aria-pressed") == "true"
    site.move("resume")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    assert "paused" in page.inner_text("#summary")
    page.click("#refresh")
    page.wait_for_selector("#summary >> text=running")


def test_the_first_key_skips_to_the_content(as_shipped: str, visit: Callable[..., Visit]) -> None:
    one = visit(as_shipped)
    page = one.go("/service")
    one.type("", "Tab")
    assert one.focused() == "Skip to the content"
    one.type("", "Enter")
    assert one.focused() == "main"
    one.type("", "Tab")
    assert page.evaluate("!!document.activeElement.closest('main')")
    order = ["Try", "Rollout", "Checkpoints", "Service"]
    assert page.locator("nav[aria-label=Console] a").all_inner_texts() == order
    assert page.locator("nav [aria-current=page]").all_inner_texts() == ["Service"]


def test_a_report_of_the_gate_is_three_keys_away(replica: str, visit: Callable[..., Visit]) -> None:
    one = visit(replica)
    one.log_in()
    page = one.go("/checkpoints")
    one.tab_to("week-2-long")
    one.type("", "Enter")
    page.wait_for_selector("#gate")
    assert "Caught by s_rand, tokens, judge, inflation." in page.inner_text("main")
    first = page.locator('[aria-label="Limits of the gate"] tbody tr').first.inner_text()
    assert "FAIL" in first  # what decides is on top
