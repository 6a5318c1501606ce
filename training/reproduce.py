"""Measure published results again: `python -m training.reproduce [--only ID] [--files PATTERN] [--update]`.

Each distinct command of `results/*.yaml` runs once. `$OUT` in it is the folder it writes its JSON to, `$DATA`
the data: `data` in the folder that COREWRITE_SHARED names (default ../shared). A number further from the
published one than its tolerance makes the exit status 1.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from training.report import RESULTS, Result, ResultsError, read_results

OUT = Path(".cache") / "reproduce"
INTERVALS = {
    "ndcg@10": "ci",
    "r@10": "ci",
    "delta": "delta_ci",
    "over_nearest": "over_nearest_ci",
    "gain": "gain_ci",
    "worst": "worst_ci",
    "worst_lying": "worst_lying_ci",
}
"""The field of a row that holds the interval of a number."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A published result beside what its command says now."""

    result: Result
    value: float
    interval: tuple[float, float] | None

    @property
    def agrees(self) -> bool:
        """Whether the new value is within the tolerance of the published one."""
        return abs(self.value - self.result.value) <= self.result.tolerance + 1e-9


def measure(results: Sequence[Result], out: Path, data: Path) -> list[Measured]:
    """Run the distinct commands, in order, and read the number of each result.

    Raises:
        ResultsError: a command fails, writes no such file, or `select` does not point at one number.
    """
    out.mkdir(parents=True, exist_ok=True)
    for command in dict.fromkeys(result.command for result in results):
        words = shlex.split(Template(command).substitute(OUT=out.as_posix(), DATA=data.as_posix()))
        # The interpreter's own folder first: `corewrite` is the one of this environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        status = subprocess.run(words, check=False, env={**os.environ, "PATH": path}).returncode  # noqa: S603
        if status != 0:
            raise ResultsError(f"exit status {status}: {command}")
    return [_measured(result, out / result.json_file) for result in results]


def select(report: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one row of `report["rows"]` that has every value of `wanted`, or `report` for no wish.

    Raises:
        ResultsError: no row, or more than one.
    """
    if not wanted:
        return report
    rows = [
        row for row in report.get("rows", []) if all(row.get(key) == value for key, value in wanted.items())
    ]
    if len(rows) != 1:
        raise ResultsError(f"{len(rows)} rows with {dict(wanted)}, one expected")
    only: Mapping[str, Any] = rows[0]
    return only


def update(path: Path, measured: Sequence[Measured]) -> None:
    """Rewrite the values of the results file with the new ones, and where and when they were measured."""
    new = {one.result.id: one for one in measured}
    stamp = {
        "commit": commit(),
        "machine": machine(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    records = [result.model_dump(by_alias=True, exclude_none=True) for result in read_results(path)]
    for record in records:
        if one := new.get(record["id"]):
            record.update(stamp, value=one.value)
            if one.interval is not None:
                record["interval"] = one.interval
        if "interval" in record:
            record["interval"] = list(record["interval"])
    path.write_text(yaml.safe_dump(records, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the published results again and compare."""
    parser = argparse.ArgumentParser(prog="python -m training.reproduce", description=main.__doc__)
    parser.add_argument("--only", action="append", metavar="ID", help="only this result; may be repeated")
    parser.add_argument("--files", default="*.yaml", metavar="PATTERN", help="of the results folder (all)")
    parser.add_argument("--update", action="store_true", help="write the new values to the files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the YAML files")
    args = parser.parse_args(argv)
    data = Path(os.environ.get("COREWRITE_SHARED", "../shared")) / "data"
    found, agree = 0, True
    try:
        for path in sorted(args.results.glob(args.files)):
            results = [one for one in read_results(path) if not args.only or one.id in args.only]
            measured = measure(results, OUT, data)
            found += len(measured)
            for one in measured:
                agree &= one.agrees
                sys.stdout.write(_line(one) + "\n")
            if args.update and measured:
                update(path, measured)
    except ResultsError as error:
        sys.stderr.write(f"reproduce: {error}\n")
        return 2
    if not found:
        sys.stderr.write("reproduce: no such result\n")
        return 2
    return 0 if agree or args.update else 1


def _measured(result: Result, path: Path) -> Measured:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        field = result.select["field"]
        row = select(report, {key: value for key, value in result.select.items() if key != "field"})
        interval = row.get(INTERVALS.get(field, ""))
        return Measured(result, float(row[field]), tuple(interval) if interval else None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{result.id}: {path.name}: {error!r}") from error


def _line(one: Measured) -> str:
    verdict = "ok" if one.agrees else "DIFFERS"
    published = f"{one.result.value:.4f} ± {one.result.tolerance:.4f}"
    return f"{one.result.id:48} {published:>17}  now {one.value:.4f}  {verdict}"


def commit() -> str:
    """What git calls the tree that measures, `-dirty` where it is not a commit."""
    git = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def machine() -> str:
    """The machine that measures, without its name."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()} Python {platform.python_version()}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
