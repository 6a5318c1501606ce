"""`corewrite gate`: may a checkpoint serve? Heavy imports wait until the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from training.gate.verdict import Verdict

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name

EXIT = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4, "ERROR": 5}
"""Exit statuses; 1 and 2 are failures of the command itself."""


def add_gate(subparsers: Subparsers) -> None:
    """Add `corewrite gate`."""
    parser = subparsers.add_parser(
        "gate",
        help="judge a checkpoint against the one that serves",
        description="Let both answer a window of searches that the candidate has not learnt from, measure, "
        "and say PASS (exit status 0), FAIL (3), INCONCLUSIVE (4: too little evidence, with how much more is "
        "needed) or ERROR (5: something is missing). Writes gate.json and gate.html.",
    )
    parser.add_argument(
        "candidate", metavar="CANDIDATE", help="a checkpoint folder, or a name in the registry"
    )
    parser.add_argument("--against", metavar="INCUMBENT", required=True, help="likewise")
    parser.add_argument(
        "--data", type=Path, metavar="WINDOW", required=True, help="TOML with logs and labels"
    )
    parser.add_argument("--policy", type=Path, help="TOML with the limits (training/configs/gate.toml)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gate"), help="folder of the report (%(default)s)"
    )
    parser.add_argument("--registry", metavar="URL", help="folder or s3://..., gs://... (REWRITE_REGISTRY)")
    parser.set_defaults(run=run_gate)


def run_gate(args: argparse.Namespace) -> int:
    """Judge, write the report, print the verdict. Returns one of EXIT, or 2 when nothing could be judged."""
    from tempfile import TemporaryDirectory  # noqa: PLC0415 -- see the module's docstring

    from training.config import ConfigError, read_config  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.gate.policy import DEFAULT_POLICY, read_policy  # noqa: PLC0415
    from training.gate.report import gate  # noqa: PLC0415
    from training.gate.serving import ServingError  # noqa: PLC0415
    from training.gate.window import WindowConfig  # noqa: PLC0415

    try:
        policy = read_policy(args.policy or DEFAULT_POLICY)
        config = read_config(args.data, WindowConfig)
        with TemporaryDirectory() as temporary:
            folders = [
                folder_of(name, args.registry, Path(temporary) / str(place))
                for place, name in enumerate((args.candidate, args.against))
            ]
            verdict = gate(folders[0], folders[1], config, policy, args.out)
    except (ConfigError, DataError, ServingError) as error:
        sys.stderr.write(f"corewrite gate: {error}\n")
        return 2
    sys.stdout.write(in_words(verdict) + f"{args.out / 'gate.html'}\n")
    return EXIT[verdict.state.name]


def folder_of(name: str, registry: str | None, temporary: Path) -> Path:
    """The folder of that name, or what the registry has by it, pulled.

    Raises:
        CheckpointError, RegistryError: it is neither.
    """
    from app.commands.registry import open_registry  # noqa: PLC0415 -- see the module's docstring

    if Path(name).is_dir():
        return Path(name)
    found = open_registry(registry)
    return found.pull(found.resolve(name), temporary).path


def in_words(verdict: Verdict) -> str:
    """Return the verdict and what stands in its way, a line each."""
    lines = [verdict.state.name, *verdict.problems]
    for one in verdict.decisions:
        if one.state.name != "PASS":
            told = one.reason or (
                f"candidate {one.candidate:.4f}"
                + (f", incumbent {one.incumbent:.4f}" if one.incumbent is not None else "")
                + (f"; some {one.needed:,} queries would settle it" if one.needed else "")
            )
            lines.append(f"  {one.state.name:<12}  {one.metric} ({one.limit} {one.bound:g}): {told}")
    return "\n".join(lines) + "\n"
