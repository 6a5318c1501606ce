"""The dashboards: what they ask a real Prometheus that scrapes a real service, and what Grafana is given."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port
from waiting import wait_until

from app.telemetry import METRICS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "k8s" / "dashboards"
SOURCES = sorted(FOLDER.glob("*.toml"))
PANELS = [
    (source.stem, panel["title"], query)
    for source in SOURCES
    for row in tomllib.loads(source.read_text(encoding="utf-8"))["rows"]
    for panel in row["panels"]
    for query in panel["queries"]
]
METRIC = re.compile(r"\b(?:corewrite|process|kube)_\w+")


@pytest.fixture(scope="module")
def prometheus(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one that has scraped the service twice, with some searches between."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (apt-get install prometheus)")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = url.removeprefix("http://")
    scrape = {"job_name": "corewrite", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    scrape |= {"scrape_timeout": "1s"}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [scrape]}), encoding="utf-8")  # JSON is YAML
    listen = f"--web.listen-address=127.0.0.1:{port}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", listen]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    here = f"http://127.0.0.1:{port}"
    searches = 0

    def scraped() -> bool:
        nonlocal searches
        searches += 1
        asked = {"query": f"query {searches}"}
        assert httpx.post(f"{url}/v1/rewrite", json=asked, timeout=30).status_code == 200
        try:
            return bool(ask(here, "sum(rate(corewrite_requests_total[1m])) > 0"))
        except (OSError, AssertionError):
            return False

    try:
        wait_until(scraped, within_s=60)
        yield here
    finally:
        process.kill()
        process.wait()


def ask(url: str, expression: str) -> list[Any]:
    query = urllib.parse.urlencode({"query": expression.replace("$__rate_interval", "1m")})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as answer:  # noqa: S310 -- our own
        told = json.loads(answer.read())
    assert told["status"] == "success", told
    result: list[Any] = told["data"]["result"]
    return result


@pytest.mark.parametrize(("board", "title", "query"), PANELS, ids=lambda part: str(part)[:40])
def test_a_panel_shows_what_there_is(prometheus: str, board: str, title: str, query: dict[str, str]) -> None:
    """Where every series that it asks for is there, so is its answer, with the labels of its legend."""
    found = ask(prometheus, query["expr"])
    selectors = re.findall(r"\b(?:corewrite|process|kube)_\w+(?:\{[^}]*\})?", query["expr"])
    if all(ask(prometheus, selector) for selector in selectors):
        assert found, (board, title)
    for label in re.findall(r"\{\{(\w+)\}\}", query["legend"]):
        assert all(label in series["metric"] for series in found)


def test_every_metric_is_one_that_the_service_has_and_has_a_panel() -> None:
    exported = {spec.name for spec in METRICS}
    asked = {name for _, _, query in PANELS for name in METRIC.findall(query["expr"])}
    ours = {re.sub(r"_bucket$", "", name) for name in asked if name.startswith("corewrite_")}
    assert ours <= exported
    # Not of interest to whoever looks at a page: sizes, and what only explains another panel.
    left_out = {
        *(
            "corewrite_cache_entries",
            "corewrite_singleflight_shared_total",
            "corewrite_background_generations",
        ),
        *("corewrite_engine_requests", "corewrite_stages_total", "corewrite_remembered_searches"),
        "corewrite_ignored_headers_total",
    }
    assert exported - ours == left_out


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_what_grafana_is_given_is_what_is_written(source: Path) -> None:
    rendered = runpy.run_path(str(FOLDER / "render.py"))["rendered"]
    given = source.with_suffix(".json").read_text(encoding="utf-8")
    assert given == rendered(source)
    panels = json.loads(given)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
