"""What each choice of the loop is worth: `python -m training.ablations` (`make ablations`).

`training/configs/ablations.toml` has the loop, and variants that change it in one respect; each is run with
every seed on one log of simulated searches, and all are measured alike: the reward of first choices on
queries kept apart, by the terms of the unchanged loop, and nDCG@10 on validation titles
(`training.policy_quality`). GRPO and online DPO get the wall-clock, and the tokens, that the loop took. The
loop itself is compared with what it started from through the staged stack, on the dev splits.

What the output has is kept, and a loop that was interrupted goes on: the whole takes hours.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.ablation_bench import Bench, Plan, Row
from training.ablations_plot import draw_ablations, table
from training.compare import compare
from training.config import read_config
from training.datasets.beir import read_task
from training.loop import write_whole
from training.reproduce import commit, machine

SPLITS = ("dev_seen", "dev_unseen", "dev_canonical")


class Record:
    """What was measured, in a file that is whole after every run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._commit = commit()  # of the code that runs, whatever the tree becomes meanwhile
        empty = {"machine": machine(), "start": {}, "stages": {}, "rows": []}
        self.content: dict[str, Any] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else empty
        )

    def has(self, group: str, name: str, seed: int) -> bool:
        """Whether a run is there; of a rival both ends count as one."""
        rows = self.content["rows"]
        return (group, name, seed) in {
            (row["group"], row["variant"].partition(", equal")[0], row["seed"]) for row in rows
        }

    def stamped(self, rows: Iterable[Row]) -> list[Row]:
        """Return rows that name the commit which measured them."""
        return [row | {"commit": self._commit} for row in rows]

    def save(self) -> None:
        """Write the file."""
        write_whole(self._file, json.dumps(self.content, indent=1) + "\n")


def fill(record: Record, plan: Plan, runs: Path) -> None:
    """Run and measure what the record lacks: first the loop and its dev splits, then the others by seed."""
    same, *others = plan.variants
    order = [(same, seed) for seed in plan.seeds]
    order += [(variant, seed) for seed in plan.seeds for variant in others]
    todo = [one for one in order if not record.has(one[0].group, one[0].name, one[1])]
    splits = [split for split in SPLITS if split not in record.content["stages"]]
    if not (todo or splits):
        return
    bench = Bench(plan, runs)
    record.content["start"] = bench.start
    for variant, seed in tqdm(todo, unit="run"):
        if variant != same:
            _fill_stages(record, plan, bench, splits)
            splits = []
        record.content["rows"] += record.stamped(bench.rows(variant, seed))
        record.save()
    _fill_stages(record, plan, bench, splits)


def _fill_stages(record: Record, plan: Plan, bench: Bench, splits: Sequence[str]) -> None:
    for split in splits:
        checkpoints = [plan.loop.checkpoint, *map(bench.checkpoint, plan.seeds)]
        names = ["start", *(f"seed {seed}" for seed in plan.seeds)]
        task = read_task(plan.loop.data_dir / "jobs", split)
        rows = compare(task, checkpoints, plan.loop.relevance, names=names)
        record.content["stages"][split] = record.stamped(rows)
        record.save()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and draw all."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablations", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("training/configs/ablations.toml"))
    parser.add_argument("--out", type=Path, default=Path("results/ablations.json"))
    parser.add_argument("--plots", type=Path, default=Path("docs/plots"))
    parser.add_argument("--table", type=Path, default=Path("docs/ablations.md"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    args = parser.parse_args(argv)
    record = Record(args.out)
    fill(record, read_config(args.config, Plan), args.runs)
    draw_ablations(record.content, args.plots)
    args.table.write_text(table(record.content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
