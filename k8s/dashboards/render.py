"""Dashboards for Grafana from their TOML: `python k8s/dashboards/render.py` writes a .json beside each .toml.

A dashboard is rows of panels, and a panel is a question with its PromQL; where they stand follows from that.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Grafana (schema 39, from version 11 on) takes."""
    return {
        "uid": told["uid"],
        "title": told["title"],
        "description": told["about"],
        "schemaVersion": 39,
        "tags": ["corewrite"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": list(_panels(told["rows"])),
    }


def _panels(rows: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for row in rows:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": row["title"], "gridPos": place, "panels": []}
        width = WIDTH // len(row["panels"])
        for column, panel in enumerate(row["panels"]):
            number += 1
            place = {"x": column * width, "y": y + 1, "w": width, "h": HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(panel)}
        number, y = number + 1, y + 1 + HEIGHT


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "expr": query["expr"], "legendFormat": query["legend"]}
        for place, query in enumerate(panel["queries"])
    ]
    return {
        "type": "timeseries",
        "title": panel["title"],
        "description": panel.get("about", ""),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0}, "overrides": []},
        "targets": [{"datasource": SOURCE, **target} for target in targets],
    }


def rendered(source: Path) -> str:
    """Return the JSON of a dashboard's TOML."""
    return json.dumps(dashboard(tomllib.loads(source.read_text(encoding="utf-8"))), indent=1) + "\n"


if __name__ == "__main__":
    for source in sorted(FOLDER.glob("*.toml")):
        source.with_suffix(".json").write_text(rendered(source), encoding="utf-8")
