from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from app.reference import metrics_page
from app.telemetry import METRICS

if TYPE_CHECKING:
    from fakes import FakeEngine
    from starlette.testclient import TestClient

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_what_the_code_says() -> None:
    assert DOC.read_text(encoding="utf-8") == metrics_page(), (
        "run: python -m app.reference metrics > docs/metrics.md"
    )


def test_declared_and_exported_metrics_are_the_same(client: TestClient) -> None:
    client.post("/v1/rewrite", json={"query": "rn icu"})
    text = client.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (corewrite_\w+) (\w+)$", text, re.MULTILINE))
    exported = {name: kind for name, kind in types.items() if not name.endswith("_created")}
    assert exported == {spec.name: spec.kind for spec in METRICS}


def test_labels_come_from_their_closed_sets(client: TestClient, engine: FakeEngine) -> None:
    engine.completions = lambda _: []
    for body in ({"query": "rn icu"}, {"query": ""}, {"query": "a", "deadline_ms": 1}):
        client.post("/v1/rewrite", json=body, headers={"traceparent": "x"})
    samples = re.findall(
        r"^(corewrite_\w+?)(?:_bucket|_count|_sum|_created)?\{(.*)\} ",
        client.get("/metrics").text,
        re.MULTILINE,
    )
    specs = {spec.name.removesuffix("_total"): spec for spec in METRICS}
    assert samples
    for name, labels in samples:
        spec = specs[name.removesuffix("_total")]
        found = {key: value for key, value in re.findall(r'(\w+)="([^"]*)"', labels) if key != "le"}
        assert set(found) == set(spec.labels)
        for key, value in found.items():
            allowed = spec.labels[key]
            assert isinstance(allowed, str) or value in allowed


def test_units_are_in_the_names() -> None:
    for spec in METRICS:
        assert spec.kind != "counter" or spec.name.endswith("_total")
        assert spec.kind != "histogram" or spec.name.endswith("_seconds")
