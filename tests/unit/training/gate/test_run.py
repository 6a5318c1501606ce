"""The gate from end to end, with real models, on a window of made-up searches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.gate.run
from app.cli import main
from app.contracts.manifest import MANIFEST_NAME
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.relevance.choice import DEFAULT_RELEVANCE
from training.gate.verdict import Measurement

JOBS = (
    *("registered nurse", "staff nurse", "welder", "mig welder", "truck driver", "bus driver"),
    *("software developer", "web developer", "cook", "head chef", "baker", "school teacher"),
)
ASKED = ("rn icu", "cdl a driver", "java dev", "line cook", "weldor", "teachr", "rn nights", "bus drivr")


@pytest.fixture
def window(tmp_path: Path, write_jsonl: Callable[[str, list[dict[str, Any]]], Path]) -> Path:
    """Forty searches on 2026-11-08 with clicks, and eight labelled queries."""
    corpus = [{"_id": str(n), "title": "", "text": text} for n, text in enumerate(JOBS)]
    write_jsonl("corpus.jsonl", corpus)
    log = []
    for n in range(40):
        ids = {"query_id": f"q{n}", "user_query": f"{ASKED[n % 8]} {'senior ' * (n // 8)}".strip()}
        for minute, (action, place) in enumerate((("impression", 0), ("impression", 1), ("click", 1))):
            shown = {"object": {"object_id": str((n + place) % 12)}, "position": {"ordinal": place + 1}}
            when = f"2026-11-08T{n // 4:02d}:0{minute}:00Z"
            log.append({**ids, "action_name": action, "timestamp": when, "event_attributes": shown})
    write_jsonl("log.ndjson", log)
    write_jsonl("queries.jsonl", [{"_id": f"l{n}", "text": text} for n, text in enumerate(ASKED)])
    (tmp_path / "qrels").mkdir()
    grades = "".join(f"l{n}\t{n % 12}\t1\n" for n in range(8))
    (tmp_path / "qrels" / "dev.tsv").write_text(f"query-id\tcorpus-id\tscore\n{grades}")
    file = tmp_path / "window.toml"
    file.write_text(f"""
seed = 1
data_dir = "{tmp_path}"
checkpoint = "{DEFAULT_CHECKPOINT}"
relevance = "{DEFAULT_RELEVANCE}"
[[logs]]
corpus = "{tmp_path / "corpus.jsonl"}"
events = ["{tmp_path / "log.ndjson"}"]
[[labels]]
data = "{tmp_path}"
split = "dev"
""")
    return file


def candidate(folder: Path, learnt: Sequence[str] | None) -> Path:
    """The default checkpoint, as if it had learnt from a log."""
    shutil.copytree(DEFAULT_CHECKPOINT, folder)
    manifest = folder / MANIFEST_NAME
    manifest.chmod(0o644)
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    facts |= {"version": 2, "data_window": learnt and {"first": learnt[0], "last": learnt[1]}}
    manifest.write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_no_change_is_no_promotion_and_an_old_window_is_an_error(
    window: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what serving costs: how busy this machine is must decide nothing here."""
    one = np.ones(40)
    cost = {"latency": Measurement(one, one), "memory": Measurement(one[:1], one[:1], exact=True)}
    monkeypatch.setattr(training.gate.run, "measure_serving", lambda *_: cost)
    out = tmp_path / "out"
    words = ["--against", str(DEFAULT_CHECKPOINT), "--data", str(window), "--out", str(out)]
    fresh = candidate(tmp_path / "fresh", ("2026-11-01T00:00:00Z", "2026-11-08T00:00:00Z"))
    assert main(["gate", str(fresh), *words]) == 4
    record = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    assert record["verdict"] == "INCONCLUSIVE"
    assert (record["window"]["queries"], record["window"]["labelled"]) == (40, 8)
    states = {(row["metric"], row["limit"]): row["state"] for row in record["decisions"]}
    assert "ERROR" not in states.values()
    assert states["ndcg@10", "goal"] == "INCONCLUSIVE"
    assert states["r_main", "margin"] == states["copied", "margin"] == states["kl", "high"] == "PASS"
    assert record["means"]["kl"]["candidate"] == 0
    assert record["means"]["judge"]["candidate"] == record["means"]["judge"]["incumbent"]
    assert (out / "gate.html").exists()
    stale = candidate(tmp_path / "stale", ("2026-11-01T00:00:00Z", "2026-11-09T00:00:00Z"))
    assert main(["gate", str(stale), *words]) == 5
    record = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    assert "name a newer one" in record["problems"][0]
