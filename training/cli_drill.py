"""`corewrite drill reward-hack`. Heavy imports wait until the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name


def add_drill(subparsers: Subparsers) -> None:
    """Add `corewrite drill`."""
    parser = subparsers.add_parser("drill", help="break something on purpose, and see it caught")
    drills = parser.add_subparsers(required=True, metavar="DRILL")
    hack = drills.add_parser(
        "reward-hack",
        help="policies that cheat their reward, the gate that notices, the way back",
        description="Train with rewards that have a hole, judge what comes of it, restore last_good, close "
        "the hole, train again, judge again. Exit status 0 where every hack failed the gate and every "
        "recovery passed it, else 3. It goes on where it was stopped.",
    )
    hack.add_argument("--config", type=Path, default=Path("training/configs/drill.toml"))
    hack.add_argument("--run-dir", type=Path, default=Path("runs/drill"), help="(%(default)s)")
    hack.add_argument("--out", type=Path, default=Path("results/drill"), help="reports (%(default)s)")
    hack.add_argument(
        "--mitigations", action="store_true", help="also each way to shape rewards: hours in place of minutes"
    )
    hack.set_defaults(run=run_drill)


def run_drill(args: argparse.Namespace) -> int:
    """Drill and write the reports. Returns 0 or 3, or 2 when it cannot be done."""
    import json  # noqa: PLC0415 -- see the module's docstring
    import shutil  # noqa: PLC0415

    from training.config import ConfigError, read_config  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.drill.plan import DrillConfig  # noqa: PLC0415
    from training.drill.plot import draw_drill, page  # noqa: PLC0415
    from training.drill.run import Drill  # noqa: PLC0415
    from training.gate.serving import ServingError  # noqa: PLC0415
    from training.mpo_phase import PhaseError  # noqa: PLC0415

    try:
        drill = Drill(read_config(args.config, DrillConfig), args.run_dir)
        records = drill.run()
        mitigations = drill.mitigations() if args.mitigations else []
    except (ConfigError, DataError, PhaseError, ServingError) as error:
        sys.stderr.write(f"corewrite drill: {error}\n")
        return 2
    for record in records:
        folder = args.out / record["hack"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "drill.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draw_drill(record, folder / "trail.png")
        for run in ("hacked", "recovered"):
            report = args.run_dir / record["hack"] / f"{record['hack']}-{run}" / "gate" / "gate.json"
            shutil.copy(report, folder / f"gate-{run}.json")
    told = page(records, mitigations)
    (args.out / "README.md").write_text(told, encoding="utf-8")
    sys.stdout.write(told)
    caught = all(record["hacked"]["verdict"] == "FAIL" for record in records)
    back = all(record["recovered"]["verdict"] == "PASS" for record in records)
    return 0 if caught and back else 3
