from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.report import BEGIN, END, ResultsError, fill, main, read_results, render_results_table

RECORD = """\
- id: jobs-dense
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


def test_the_table_has_value_tolerance_interval_stamp_and_command(results: Path) -> None:
    table = render_results_table(results)
    assert table.startswith("**job titles**\n")
    assert "| `jobs-dense` | 0.1756 ± 0.002 | [0.1578, 0.1947] | nDCG@10 |" in table
    assert "Measured at 0123abc, 2 cores, 2026-01-31." in table
    assert "corewrite evaluate --data $DATA/jobs --json $OUT/a.json" in table


def test_words_replace_the_id_and_a_missing_interval_stays_empty(results: Path) -> None:
    text = RECORD.replace("  interval: [0.1578, 0.1947]\n", "  what: dense alone\n")
    (results / "job_titles.yaml").write_text(text, encoding="utf-8")
    assert "| dense alone | 0.1756 ± 0.002 |  | nDCG@10 |" in render_results_table(results)


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
    assert "`jobs-dense`" in readme.read_text("utf-8")
    assert main(["--results", str(results)]) == 0
    assert "`jobs-dense`" in capsys.readouterr().out
