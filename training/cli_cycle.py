"""`corewrite cycle`: the weekly cycle. Heavy imports wait until the command runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli_train import add_where, workers_of

if TYPE_CHECKING:
    import argparse

    from training.gate.window import WindowConfig

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name


LAST_WEEK = "last-week"


def add_cycle(subparsers: Subparsers) -> None:
    """Add `corewrite cycle`."""
    parser = subparsers.add_parser(
        "cycle",
        help="a week: train on its logs, judge, and name the candidate",
        description="Train from the registry's `stable` on the first part of a window, judge the result on "
        "the rest of it, push it, and point `candidate` to it where it passes. The same command goes on "
        "where one that was killed has stopped. Exit status: that of `corewrite gate`.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="TOML, such as training/configs/cycle.toml"
    )
    parser.add_argument(
        "--window",
        required=True,
        metavar="FIRST/LAST",
        help="days, such as 2026-11-08/2026-11-15; last-week: the last one, Monday to Monday, UTC",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/cycles"), help="a folder for each (%(default)s)"
    )
    parser.add_argument("--registry", metavar="URL", help="folder or s3://..., gs://... (REWRITE_REGISTRY)")
    parser.add_argument(
        "--sign-with", type=Path, metavar="KEY", help="Ed25519 private key (PEM), for what passes alone"
    )
    add_where(parser)
    parser.set_defaults(run=run_cycle)


def run_cycle(args: argparse.Namespace) -> int:
    """Go on with the cycle of that window.

    Returns the gate's exit status; 2 where another try would end like this one, 1 where the registry is out
    of reach, and another one may go on from here.
    """
    from app.commands.registry import open_registry  # noqa: PLC0415 -- see the module's docstring
    from app.contracts.manifest import DataWindow  # noqa: PLC0415
    from app.errors import RegistryError  # noqa: PLC0415
    from app.registry.signature import require_key  # noqa: PLC0415
    from app.settings import Settings  # noqa: PLC0415
    from training.cli_gate import EXIT  # noqa: PLC0415
    from training.config import ConfigError, read_config  # noqa: PLC0415
    from training.cycle import Cycle, CycleConfig, CycleError, Steps  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.gate.serving import ServingError  # noqa: PLC0415
    from training.mpo_phase import PhaseError  # noqa: PLC0415
    from training.run_loop import run  # noqa: PLC0415

    try:
        window = DataWindow.parse(last_week(datetime.now(UTC)) if args.window == LAST_WEEK else args.window)
    except ValueError as error:
        sys.stderr.write(f"corewrite cycle: --window: {error}\n")
        return 2
    try:
        config = read_config(args.config, CycleConfig)
        folder = args.runs / config.name_of(window)
        registry = open_registry(args.registry)
        if args.sign_with is not None:
            require_key(args.sign_with, Settings().signers)  # now, and not after hours of training
        train = partial(run, workers=workers_of(args, config.loop))
        cycle = Cycle(config, window, registry, folder, Steps(train, gated), key=args.sign_with)
        verdict = cycle.run()
    except (ConfigError, CycleError, DataError, PhaseError, ServingError) as error:
        sys.stderr.write(f"corewrite cycle: {error}\n")
        return 2
    except RegistryError as error:
        sys.stderr.write(f"corewrite cycle: {error}\n")
        return 1
    sys.stdout.write((folder / "summary.md").read_text(encoding="utf-8"))
    return EXIT[verdict]


def last_week(now: datetime) -> str:
    """Return the last week that is over: the same all week long, so that a late try goes on with it."""
    monday = now.date() - timedelta(days=now.weekday())
    return f"{monday - timedelta(weeks=1)}/{monday}"


def gated(candidate: Path, incumbent: Path, config: WindowConfig, policy: Path | None, folder: Path) -> str:
    """Run the gate and write its report; return the verdict's name."""
    from training.gate.policy import DEFAULT_POLICY, read_policy  # noqa: PLC0415 -- see the module's docstring
    from training.gate.report import gate  # noqa: PLC0415

    return gate(candidate, incumbent, config, read_policy(policy or DEFAULT_POLICY), folder).state.name
