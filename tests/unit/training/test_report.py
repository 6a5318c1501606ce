from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.report import BEGIN, END, ResultsError, fill, main, read_results, render_results_table

RECORD = """\
- id: jobs-dense
  row: dev_seen, dense
  column: original
  command: corewrite evaluate --data $DATA/jobs --json $OUT/a.json
  json: a.json
  select: {retriever: dense, rewrite: none, field: ndcg@10}
  value: 0.17561
  interval: [0.1578, 0.1947]
  unit: nDCG@10
  tolerance: 0.002
  commit: 0123abc
  machine: 2 cores
  date: 2026-01-31
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "job_titles.yaml").write_text(RECORD, encoding="utf-8")
    return folder


def test_a_record_is_read_whole(results: Path) -> None:
    [result] = read_results(results / "job_titles.yaml")
    assert (result.id, result.json_file, result.date) == ("jobs-dense", "a.json", "2026-01-31")
    assert result.interval == (0.1578, 0.1947)


DELTA = (
    RECORD.replace("id: jobs-dense", "id: jobs-dense-delta")
    .replace("column: original", "column: gain")
    .replace("field: ndcg@10", "field: delta")
    .replace("0.17561", "-0.01")
    .replace("0.1578", "-0.02")
)


def test_records_of_a_row_stand_side_by_side(results: Path) -> None:
    (results / "job_titles.yaml").write_text(RECORD + DELTA, encoding="utf-8")
    table = render_results_table(results)
    assert table.startswith("**job titles** (nDCG@10)\n\n| | original | gain |\n|---|--:|--:|\n")
    assert "| dev_seen, dense | 0.176 | -0.010 [-0.020, +0.195] |" in table
    assert "Measured at 0123abc, 2 cores, 2026-01-31." in table
    assert table.count("corewrite evaluate --data $DATA/jobs --json $OUT/a.json") == 1


def test_a_row_may_lack_a_column(results: Path) -> None:
    other = DELTA.replace("dev_seen, dense", "dev_seen, bm25")
    (results / "job_titles.yaml").write_text(RECORD + other, encoding="utf-8")
    assert "| dev_seen, dense | 0.176 |  |" in render_results_table(results)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RECORD + RECORD, "repeated id 'jobs-dense'"),
        (RECORD.replace("  unit: nDCG@10\n", ""), "unit"),
        (RECORD + "  colour: red\n", "colour"),
        (RECORD.replace("tolerance: 0.002", "tolerance: -1"), "tolerance"),
        ("- [", "job_titles.yaml"),
    ],
)
def test_a_bad_file_is_refused_by_name(results: Path, text: str, complaint: str) -> None:
    path = results / "job_titles.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=re.escape(complaint)):
        read_results(path)


def test_only_the_marked_region_is_filled_and_filling_twice_changes_nothing() -> None:
    once = fill(f"before\n{BEGIN}\nold\n{END}\nafter\n", "table")
    assert once == f"before\n{BEGIN}\ntable\n{END}\nafter\n"
    assert fill(once, "table") == once


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_readme_without_the_region_is_refused(text: str) -> None:
    with pytest.raises(ResultsError, match="no region"):
        fill(text, "table")


def test_the_command_writes_the_readme_or_prints(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    assert main(["--results", str(results), "--write", str(readme)]) == 0
    assert "dev_seen, dense" in readme.read_text("utf-8")
    assert main(["--results", str(results)]) == 0
    assert "dev_seen, dense" in capsys.readouterr().out
