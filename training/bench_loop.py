"""What a loop costs: `python -m training.bench_loop --config TOML --run-dir DIR --json OUT`.

Each round draws completions for instances, rates them, and makes a pass over their pairs, one after the
other. A row for each step has the median seconds per 1,000 instances over the rounds, its share of the whole,
and what a million instances would take at that rate on this machine. No round knows what an earlier one
embedded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from training.config import LoopConfig, read_config
from training.datasets.instances import Instance
from training.loop import pairs_in
from training.mpo_phase import train_phase
from training.policy_engine import running_engine
from training.rating import RatedCompletion
from training.sampler import served_rater
from training.sampling import sample
from training.searches import read_searches

STEPS = ("sampling", "scoring", "training")
INSTANCES, ROUNDS = 400, 5

Row = dict[str, float | str]


def rows_of(rounds: Sequence[Sequence[float]], instances: int) -> list[Row]:
    """Return a row for each of STEPS, from the seconds each took in every round."""
    medians = [median(column) for column in zip(*rounds, strict=True)]
    return [
        {
            "step": step,
            "seconds per 1,000": round(1e3 * seconds / instances, 2),
            "share": round(seconds / sum(medians), 3),
            "hours per million": round(1e6 * seconds / instances / 3600, 1),
        }
        for step, seconds in zip(STEPS, medians, strict=True)
    ]


class Bench:
    """One loop's instances; `corpus` as `Rater.over` has it."""

    def __init__(self, config: LoopConfig, instances: Sequence[Instance], corpus: Sequence[str]) -> None:
        self._config, self._instances, self._corpus = config, instances, corpus
        torch.set_num_threads(config.num_threads)

    def round(self, number: int) -> tuple[float, float, float]:
        """Return the seconds of each of STEPS; the round's number is the seed."""
        sampling, scoring, rated = asyncio.run(self._sampled(number))
        with TemporaryDirectory() as name:
            scratch = Path(name)
            pairs, start = scratch / "pairs.jsonl", self._config.checkpoint
            found = pairs_in(start, self._config.pairs, self._instances, rated)
            pairs.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in found), encoding="utf-8")
            began = perf_counter()
            train_phase(
                start,
                pairs,
                self._config.mpo,
                scratch / "policy",
                seed=number,
                steps_file=scratch / "steps.jsonl",
            )
            return sampling, scoring, perf_counter() - began

    async def _sampled(self, seed: int) -> tuple[float, float, list[list[RatedCompletion]]]:
        config, threads = self._config, self._config.num_threads
        rater = served_rater(config, self._corpus, threads)
        began = perf_counter()
        async with running_engine(config.checkpoint, config.sampling, threads=threads) as engine:
            drawn = await sample(engine, self._instances, config.sampling, seed=seed)
        drew = perf_counter()
        rated = await rater.rate(self._instances, drawn)
        return drew - began, perf_counter() - drew, rated


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print one row a line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.bench_loop", description=(__doc__ or "").split(":", maxsplit=1)[0]
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True, help="where searches are simulated, once")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there too")
    args = parser.parse_args(argv)
    config = read_config(args.config, LoopConfig)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    searches = read_searches(config, args.run_dir)
    instances = searches.learning[:INSTANCES]
    bench = Bench(config, instances, searches.corpus)
    rows = rows_of([bench.round(number) for number in range(ROUNDS)], len(instances))
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
