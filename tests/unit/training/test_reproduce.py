from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from training import reproduce
from training.report import ResultsError, read_results
from training.reproduce import main, select

WRITER = """\
import json, sys
from pathlib import Path
log = Path(sys.argv[2])
log.write_text((log.read_text() if log.exists() else "") + "run\\n")
rows = [{"rewrite": "none", "ndcg@10": 0.25, "ci": [0.2, 0.3]}, {"rewrite": "parallel", "ndcg@10": 0.5}]
Path(sys.argv[1]).write_text(json.dumps({"rows": rows, "exact": 0.75}))
"""


def record(name: str, value: float, **chosen: object) -> dict[str, object]:
    return {
        "id": name,
        "row": name,
        "column": "value",
        "command": "python writer.py $OUT/a.json $OUT/log",
        "json": "a.json",
        "select": chosen,
        "value": value,
        "unit": "nDCG@10",
        "tolerance": 0.01,
        "commit": "0123abc",
        "machine": "2 cores",
        "date": "2026-01-31",
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "commit", lambda: "feedbee")
    Path("writer.py").write_text(WRITER, encoding="utf-8")
    Path("results").mkdir()
    path = Path("results") / "jobs.yaml"
    write(
        path, [record("none", 0.255, rewrite="none", field="ndcg@10"), record("exact", 0.75, field="exact")]
    )
    return path


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text(yaml.safe_dump(records), encoding="utf-8")


def test_values_within_tolerance_agree_and_a_shared_command_runs_once(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.exists()
    assert main([]) == 0
    assert (reproduce.OUT / "log").read_text("utf-8") == "run\n"
    assert capsys.readouterr().out.count(" ok\n") == 2


def test_a_value_out_of_tolerance_fails_by_name(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        results,
        [record("none", 0.261, rewrite="none", field="ndcg@10"), record("exact", 0.75, field="exact")],
    )
    assert main([]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out if line.endswith("DIFFERS")] == ["none"]
    assert main(["--only", "exact"]) == 0


def test_update_writes_values_intervals_and_stamp_of_what_was_measured_only(results: Path) -> None:
    write(
        results, [record("none", 0.9, rewrite="none", field="ndcg@10"), record("exact", 0.1, field="exact")]
    )
    assert main(["--update", "--only", "none"]) == 0
    changed, kept = read_results(results)
    assert (changed.value, changed.interval, changed.commit) == (0.25, (0.2, 0.3), "feedbee")
    assert changed.date != "2026-01-31"
    assert (kept.value, kept.commit, kept.date) == (0.1, "0123abc", "2026-01-31")
    assert main(["--only", "none"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"command": "python -c 'raise SystemExit(3)'"},
        {"json": "missing.json"},
        {"select": {"rewrite": "oracle", "field": "ndcg@10"}},
        {"select": {"field": "nothing"}},
        {"select": {"rewrite": "none"}},
    ],
)
def test_what_cannot_be_measured_is_an_error_not_a_number(
    results: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    write(results, [record("exact", 0.75, field="exact") | change])
    assert main([]) == 2
    assert "reproduce: " in capsys.readouterr().err


def test_an_unknown_id_is_an_error(results: Path) -> None:
    assert results.exists()
    assert main(["--only", "nothing"]) == 2


def test_select_wants_exactly_one_row() -> None:
    rows = {"rows": [{"a": 1, "b": 1}, {"a": 1, "b": 2}]}
    assert select(rows, {"b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ResultsError, match="2 rows"):
        select(rows, {"a": 1})
