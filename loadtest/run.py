"""Scenarios of load and their verdicts: `python -m loadtest.run [SCENARIO ...]`, or `make load`.

Servers are fresh for each scenario, on free ports. Writes load.json, README.md and plots; the exit status
is 1 where a verdict is not PASS. What needs a program that is not installed (redis-server, PostgreSQL) is not
run, and that is said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from loadtest import page, plots
from loadtest.capacity import RESULTS, gpu_rows
from loadtest.costs import check, measure_costs
from loadtest.drive import Load, drive
from loadtest.fleet import missing
from loadtest.pilot import journeys_per_s
from loadtest.scenarios import Scenario, Scenarios
from loadtest.slo import Judgement, Slos, judge
from loadtest.trace import read_corpus
from training.canary.processes import ProcessError
from training.config import ConfigError, read_config
from training.loop import write_whole
from training.reproduce import commit, machine

HERE = Path(__file__).parent
COSTS = "costs"
"""Not a scenario: what a request costs, and whether saturation can be told from it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run, judge, report."""
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, _leave)
    try:
        scenarios = read_config(args.scenarios, Scenarios)
        slos = read_config(args.slo, Slos)
        corpus = read_corpus(args.data, args.queries, seed=args.seed)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"load: {error}\n")
        return 2
    chosen = _chosen([*(one.name for one in scenarios.scenario), COSTS], args.scenario, args.without)
    runs = args.runs or Path(tempfile.mkdtemp(prefix="corewrite-load-"))
    told = _before(args.out / "load.json") if args.keep else {}
    told |= {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "corpus": corpus.told,
        "scale": args.scale,
        "traffic": scenarios.traffic.model_dump(),
        "settings": scenarios.settings,
        "gpu": gpu_rows(RESULTS),
    }
    load = Load(scenarios.traffic, scenarios.settings, corpus, runs, 0.0, args.scale, args.seed)
    try:
        if args.saturation:
            told["unit"] = {"journeys_per_s": args.saturation, "by": "--saturation"}
        elif "unit" not in told:
            told["unit"] = {"journeys_per_s": journeys_per_s(load, runs / "pilot"), "by": "a closed loop"}
        load = dataclasses.replace(load, unit_per_s=told["unit"]["journeys_per_s"])
        results = {one["name"]: one for one in told.get("scenarios", ())}
        for scenario in (one for one in scenarios.scenario if one.name in chosen):
            results[scenario.name] = result = {**_run(scenario, load, slos), "commit": told["commit"]}
            _say(result)
            if scenario.name == "ramp" and result.get("saturation_per_s"):
                found = float(result["saturation_per_s"])
                told["unit"] = {"journeys_per_s": found, "by": "ramp", "before": told["unit"]}
                load = dataclasses.replace(load, unit_per_s=found)
            told["scenarios"] = [results[one.name] for one in scenarios.scenario if one.name in results]
            _write(args.out, told)
        if COSTS in chosen:
            told["costs"] = measure_costs(load, runs)
            told["checks"] = check(load, told["costs"], runs)
            _write(args.out, told)
    except ProcessError as error:
        sys.stderr.write(f"load: {error}; logs and records are in {runs}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"load: stopped; logs and records are in {runs}\n")
        return 130
    sys.stdout.write(f"{args.out / 'README.md'}\n")
    good = all(one["verdict"] in {"PASS", "NOT RUN"} for one in told.get("scenarios", ()))
    if good and not args.runs:
        shutil.rmtree(runs)
    else:
        sys.stdout.write(f"logs and records: {runs}\n")
    return 0 if good else 1


def _run(scenario: Scenario, load: Load, slos: Slos) -> dict[str, Any]:
    if lacking := missing(scenario):
        why = f"no {', no '.join(lacking)}"
        return {"name": scenario.name, "why": scenario.why, "verdict": "NOT RUN", "not_run": why}
    result = drive(scenario, load)
    judged = judge(slos, scenario.name, result["measures"])
    return {**result, "verdict": judged.verdict, "findings": _findings(judged)}


def _findings(judged: Judgement) -> list[dict[str, Any]]:
    return [
        {
            "measure": one.limit.measure,
            "value": one.value,
            "limit": one.limit.told(),
            "unit": one.limit.unit,
            "holds": one.holds,
        }
        for one in judged.findings
    ]


def _say(result: dict[str, Any]) -> None:
    broken = [
        f"{one['measure']} {one['value']} ({one['limit']})"
        for one in result.get("findings", ())
        if not one["holds"]
    ]
    sys.stdout.write(
        f"{result['name']}: {result['verdict']} {result.get('not_run', '')}{'; '.join(broken)}\n"
    )
    sys.stdout.flush()


def _write(out: Path, told: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "load.json", json.dumps(told, indent=1) + "\n")
    drawn = plots.draw(told, out)
    write_whole(out / "README.md", page.page(told, drawn))


def _before(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _chosen(known: Sequence[str], names: Sequence[str], without: Sequence[str]) -> set[str]:
    if wrong := {*names, *without} - set(known):
        sys.stderr.write(f"load: no scenario {', '.join(sorted(wrong))}: {', '.join(known)}\n")
        raise SystemExit(2)
    return set(names or known) - set(without)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """On SIGTERM as on Ctrl-C: everything that was started is ended on the way out."""
    signal.raise_signal(signal.SIGINT)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("scenario", nargs="*", help=f"which ({COSTS} too); none: all of the file")
    parser.add_argument("--without", action="append", default=[], metavar="SCENARIO", help="all but these")
    parser.add_argument("--scenarios", type=Path, default=HERE / "scenarios.toml", help="(%(default)s)")
    parser.add_argument("--slo", type=Path, default=HERE / "slo.toml", help="(%(default)s)")
    parser.add_argument("--data", type=Path, help="folder that has jobs/; none: queries are made up")
    parser.add_argument("--queries", type=Path, help="a file with one query a line, instead")
    parser.add_argument("--out", type=Path, default=Path("results/load"), help="(%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all times: 0.1 to try it (%(default)s)")
    parser.add_argument("--saturation", type=float, help="journeys per second; none: a pilot finds it")
    parser.add_argument(
        "--keep", action="store_true", help="add to what is in --out from before, at its rates"
    )
    parser.add_argument(
        "--runs", type=Path, help="new folder for logs and records; none: kept where not all is well"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
