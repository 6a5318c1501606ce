"""`corewrite train`. Heavy imports wait until a command runs, so that `corewrite --help` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from app.ray_actors import Workers
    from training.config import LoopConfig

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name


_RESUMES = "An interrupted run goes on where it was when the same command is given again."


def add_train(subparsers: Subparsers) -> None:
    """Add `corewrite train`: make a checkpoint, or a relevance model, from data."""
    parser = subparsers.add_parser("train", help="make a checkpoint")
    steps = parser.add_subparsers(metavar="STEP", required=True)
    sft = steps.add_parser(
        "sft",
        help="supervised fine-tuning from scratch",
        description=f"Train tokenizer and model, fit the confidence, write the checkpoint folder. {_RESUMES}",
    )
    _add_run(sft, "default.toml", out="checkpoint folder to write (RUN_DIR/checkpoint)")
    sft.set_defaults(run=run_sft)
    loop = steps.add_parser(
        "loop",
        help="better rewrites by preference: phases of sampling, scoring, and a pass over the pairs",
        description="Go through the phases of semi-online Mixed Preference Optimization with the relevance "
        f"model as the reward. {_RESUMES}",
    )
    _add_run(loop, "loop.toml", out="checkpoint folder to write (RUN_DIR/checkpoint)")
    add_where(loop)
    loop.set_defaults(run=run_loop)
    relevance = steps.add_parser(
        "relevance",
        help="the relevance model, from all-MiniLM-L6-v2",
        description="Train the vision tower and both heads, fit their calibration, write the folder. "
        f"{_RESUMES}",
    )
    _add_run(relevance, "relevance.toml", out="folder to write (RUN_DIR/NAME, or RUN_DIR/NAME-float32)")
    relevance.add_argument(
        "--float32", action="store_true", help="write a graph four times as large, to see what 8 bits cost"
    )
    relevance.set_defaults(run=run_relevance)


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add what says where completions are drawn and rated; `workers_of` reads it."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        dest="where",
        help="where to draw and rate completions (%(default)s)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="ray: engines, each its own (2)")
    parser.add_argument("--ray-address", metavar="A", help="ray: a running cluster (one for this run alone)")


def _add_run(parser: argparse.ArgumentParser, config: str, *, out: str) -> None:
    """What every run is told: its configuration, where its state lies, and where its result goes."""
    parser.add_argument("--config", type=Path, required=True, help=f"TOML, such as training/configs/{config}")
    parser.add_argument("--run-dir", type=Path, help="where the run keeps its files (runs/NAME)")
    parser.add_argument("--out", type=Path, help=out)


def run_sft(args: argparse.Namespace) -> int:
    """Train, or go on with a run, and publish its checkpoint. Returns 0, or 2 when that cannot be done."""
    from training.config import ConfigError, RunConfig, read_config  # noqa: PLC0415 - see the module's docstring
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.run_sft import run  # noqa: PLC0415

    try:
        config = read_config(args.config, RunConfig)
        run_dir = args.run_dir or Path("runs") / config.name
        run(config, run_dir, args.out or run_dir / "checkpoint")
    except (ConfigError, DataError) as error:
        print(f"corewrite train sft: {error}", file=sys.stderr)  # noqa: T201 - a command line talks to people
        return 2
    return 0


def run_loop(args: argparse.Namespace) -> int:
    """Go through the phases that are not done. Returns 0, or 2 when that cannot be done."""
    from app.errors import CorewriteError  # noqa: PLC0415 - see the module's docstring
    from training.config import ConfigError, LoopConfig, read_config  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.mpo_phase import PhaseError  # noqa: PLC0415
    from training.run_loop import run  # noqa: PLC0415

    try:
        config = read_config(args.config, LoopConfig)
        run_dir = args.run_dir or Path("runs") / config.name
        run(config, run_dir, args.out or run_dir / "checkpoint", workers_of(args, config))
    except (ConfigError, DataError, CorewriteError, PhaseError) as error:
        sys.stderr.write(f"corewrite train loop: {error}\n")
        return 2
    return 0


def workers_of(args: argparse.Namespace, config: LoopConfig) -> Workers | None:
    """Ray's workers, or None where this process does the work.

    Raises:
        ConfigError: there would be none, or they are named without Ray.
    """
    from training.config import ConfigError  # noqa: PLC0415 - see the module's docstring
    from training.on_ray import workers_for  # noqa: PLC0415

    if args.where == "ray":
        count = 2 if args.workers is None else args.workers
        return workers_for(config, count, address=args.ray_address)
    if args.workers is not None or args.ray_address is not None:
        raise ConfigError("--workers and --ray-address are for --engine ray")
    return None


def run_relevance(args: argparse.Namespace) -> int:
    """Train, or go on with a run, and publish its model. Returns 0, or 2 when that cannot be done."""
    from training.config import ConfigError, RelevanceConfig, read_config  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.run_relevance import run  # noqa: PLC0415

    try:
        config = read_config(args.config, RelevanceConfig)
        run_dir = args.run_dir or Path("runs") / config.name
        name = f"{config.name}-float32" if args.float32 else config.name
        run(config, run_dir, args.out or run_dir / name, eight_bits=not args.float32)
    except (ConfigError, DataError) as error:
        sys.stderr.write(f"corewrite train relevance: {error}\n")
        return 2
    return 0
