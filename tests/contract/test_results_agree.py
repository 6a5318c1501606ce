from __future__ import annotations

from pathlib import Path

from training.report import fill, render_results_table

ROOT = Path(__file__).parents[2]


def test_the_readmes_results_are_those_of_the_results_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    expected = fill(readme, render_results_table(ROOT / "results"))
    assert readme == expected, "run `python -m training.report --write README.md`"
