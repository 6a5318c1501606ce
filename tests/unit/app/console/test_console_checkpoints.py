"""The pages of checkpoints: registry, folder, lineage, reports, and what is wrong with any of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_site import Site
from small_checkpoint import write_checkpoint

from app.contracts.manifest import GATE_REPORT_NAME
from app.registry.checkpoint import describe_file

if TYPE_CHECKING:
    from console_client import Browser


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.fill_registry()
    return site


@pytest.fixture
def browser(browse: Callable[..., Browser], site: Site, tmp_path: Path) -> Browser:
    return browse(registry=str(tmp_path / "registry"), checkpoints=site.folder)


def test_lineage_aliases_windows_and_verdicts(browser: Browser, site: Site) -> None:
    page = browser.get("/checkpoints").text
    trunks = re.findall(r'<span class="trunk" aria-hidden="true">(.*?)</span><a[^>]*>(.*?)</a>', page)
    assert trunks == [
        ("● ", "default"),
        ("↳ ", "week-1"),
        ("├─ ", "week-2"),
        ("└─ ", "week-2-long"),
        ("● ", "default"),
    ]
    for word in ("stable", "candidate", "last_good"):
        assert f'<span class="tag">{word}</span>' in page
    assert "2026-11-08 to 2026-11-15" in page
    assert page.count(">PASS<") >= 3
    assert ">FAIL<" in page
    assert site.digests["week-1"][:12] in page


def test_a_page_for_each_with_what_the_gate_says(browser: Browser, site: Site) -> None:
    page = browser.get(f"/checkpoints/registry/{site.digests['week-2-long']}").text
    assert "Caught by <strong>s_rand, tokens, judge, inflation</strong>" in page
    assert page.count(">INCONCLUSIVE</span>") == 4
    assert "some 22,447 searches would settle it" in page
    assert "verbose-hacked against default, on 578 searches" in page
    assert f"/console/checkpoints/registry/{site.digests['week-1']}" in page  # its parent
    assert "learning_rate" in page


def test_moves_of_aliases_are_told_with_who_and_why(browser: Browser, site: Site) -> None:
    page = browser.get(f"/checkpoints/registry/{site.digests['candidate']}").text
    assert "Aliases that came and went" in page
    assert "the weekly cycle" in page


def test_folders_too_and_what_is_none_is_refused_with_its_reason(browser: Browser, site: Site) -> None:
    (site.folder / "spoilt").mkdir()
    (site.folder / "spoilt" / "manifest.json").write_text("{")
    page = browser.get("/checkpoints").text
    assert 'href="/console/checkpoints/folder/week-1"' in page
    assert "<code>spoilt</code> is refused" in page
    assert "It was not asked" in browser.get("/checkpoints/folder/week-1").text
    assert browser.get("/checkpoints/folder/spoilt").status_code == 500


def test_a_report_that_was_altered_is_not_shown(browser: Browser, site: Site) -> None:
    folder = write_checkpoint(site.folder / "mine", checkpoint_id="mine")
    report = folder / GATE_REPORT_NAME
    report.write_text('{"verdict": "PASS"}')
    write_checkpoint(folder, checkpoint_id="mine", gate_report=describe_file(report).sha256)
    assert ">PASS</span>" in browser.get("/checkpoints/folder/mine").text
    report.write_text('{"verdict": "PASS "}')
    page = browser.get("/checkpoints/folder/mine").text
    assert "is not the report that the manifest names" in page
    assert ">PASS</span>" not in page
    stored = site.folder / "registry" / "checkpoints" / site.digests["week-1"] / GATE_REPORT_NAME
    stored.write_text("{}")
    assert "is not the report" in browser.get(f"/checkpoints/registry/{site.digests['week-1']}").text
    assert ">unreadable</span>" in browser.get("/checkpoints").text


@pytest.mark.parametrize(
    "path",
    ["registry/none", "registry/" + "0" * 64, "folder/nothing", "folder/%2e%2e", "other/x"],
)
def test_what_there_is_not_is_said_not_to_be(browser: Browser, path: str) -> None:
    assert browser.get(f"/checkpoints/{path}").status_code == 404


def test_without_a_registry_it_says_so(anybody: Browser) -> None:
    page = anybody.get("/checkpoints").text
    assert "REWRITE_REGISTRY is not set" in page
    assert 'href="/console/checkpoints/folder/default"' in page  # the one in the package
    assert "fake-1" in page  # what serves


def test_a_registry_out_of_reach_is_said_to_be(browse: Callable[..., Browser], tmp_path: Path) -> None:
    page = browse(registry="nothing://there").get("/checkpoints").text
    assert "The registry is out of reach" in page
    (tmp_path / "empty").mkdir()
    assert "It is empty" in browse(registry=str(tmp_path / "empty")).get("/checkpoints").text


def test_what_was_removed_meanwhile_is_no_error(browser: Browser, site: Site) -> None:
    shutil.rmtree(site.folder / "registry" / "checkpoints" / site.digests["week-1"])
    page = browser.get("/checkpoints").text
    assert "(not here)" in page
    assert "week-2" in page
