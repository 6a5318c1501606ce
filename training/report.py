"""The results table of the README, rendered from `results/*.yaml` so that no number is copied by hand.

A file is a list of records; each says what was measured, by which command, at which commit, on which machine,
and how far a repetition may differ. `python -m training.reproduce` runs the commands again.

    - id: jobs-dev_seen-dense-parallel
      row: dev_seen, dense                             # its place in the table
      column: original + rewrites
      command: corewrite evaluate --data $DATA/jobs --split dev_seen --json $OUT/dev_seen.json
      json: dev_seen.json                              # what the command writes, in $OUT
      select: {retriever: dense, rewrite: parallel, field: ndcg@10}
      value: 0.3
      interval: [0.28, 0.32]                           # optional, 95 %
      unit: nDCG@10
      tolerance: 0.005                                 # absolute
      commit: 0123abc
      machine: 2 cores
      date: 2026-01-31
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RESULTS = Path("results")
COUNTS = {"requests", "swaps", "violations"}
"""Fields that count things."""
DIFFERENCES = frozenset({"delta", "over_nearest", "gain", "worst", "worst_lying"})
"""Fields that compare two arms query by query."""


class ResultsError(ValueError):
    """A results file or the README cannot be used; the message says which and why."""


class Result(BaseModel):
    """One measured number and how to measure it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    row: str
    column: str
    command: str
    json_file: Annotated[str, Field(alias="json")]
    select: dict[str, Any]
    """Values that a row of the JSON's `rows` must have, and `field`: the name of the number. With nothing but
    `field`, the number stands at the top of the JSON."""
    value: float
    interval: tuple[float, float] | None = None
    unit: str
    tolerance: Annotated[float, Field(ge=0)]
    commit: str
    machine: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


def read_results(path: Path) -> list[Result]:
    """Read one results file.

    Raises:
        ResultsError: it is not YAML, or a record lacks a field, has an unknown one, or repeats an id.
    """
    try:
        records = yaml.load(path.read_text(encoding="utf-8"), _StringDates)  # noqa: S506 -- a SafeLoader
        results = TypeAdapter(list[Result]).validate_python(records)
    except (yaml.YAMLError, ValidationError) as error:
        raise ResultsError(f"{path}: {error}") from error
    ids = [result.id for result in results]
    if repeated := {name for name in ids if ids.count(name) > 1}:
        raise ResultsError(f"{path}: repeated id {min(repeated)!r}")
    return results


def render_results_table(results_dir: Path) -> str:
    """Render every file of `results_dir`, in the order of their names, as Markdown. Raises ResultsError."""
    return "\n\n".join(_section(path) for path in sorted(results_dir.glob("*.yaml")))


def fill(readme: str, table: str) -> str:
    """Return `readme` with `table` between the two markers. Raises ResultsError when they are not there."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ResultsError(f"no region between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _section(path: Path) -> str:
    results = read_results(path)
    columns = list(dict.fromkeys(result.column for result in results))
    cells = {(result.row, result.column): _cell(result) for result in results}
    units = ", ".join(dict.fromkeys(result.unit for result in results))
    lines = [
        f"**{path.stem.replace('_', ' ')}** ({units})",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'--:|' * len(columns)}",
    ]
    lines += [
        f"| {row} | {' | '.join(cells.get((row, column), '') for column in columns)} |"
        for row in dict.fromkeys(result.row for result in results)
    ]
    stamps = dict.fromkeys(f"{result.commit}, {result.machine}, {result.date}" for result in results)
    commands = dict.fromkeys(result.command for result in results)
    lines += ["", *(f"Measured at {stamp}." for stamp in stamps), "", "```", *commands, "```"]
    return "\n".join(lines)


def _cell(result: Result) -> str:
    """Differences carry their sign and their interval; levels stand alone, their interval is in the file.

    What is counted has no decimals.
    """
    if result.select.get("field") in COUNTS:
        return f"{result.value:,.0f}"
    if result.select.get("field") not in DIFFERENCES:
        return f"{result.value:.3f}"
    interval = " [{:+.3f}, {:+.3f}]".format(*result.interval) if result.interval else ""
    return f"{result.value:+.3f}{interval}"


class _StringDates(yaml.SafeLoader):
    """YAML without dates: 2026-01-31 stays text."""


_StringDates.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or with `--write README.md` put it there."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=main.__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the YAML files")
    parser.add_argument("--write", type=Path, metavar="README", help="file whose marked region is replaced")
    args = parser.parse_args(argv)
    table = render_results_table(args.results)
    if args.write is None:
        sys.stdout.write(table + "\n")
    else:
        args.write.write_text(fill(args.write.read_text(encoding="utf-8"), table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
