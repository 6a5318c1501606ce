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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.registry.store import alone
from training.ablation_bench import Bench, Plan, Row
from training.ablations_plot import draw_ablations, table
from training.compare import compare
from training.config import read_config
from training.datasets.beir import read_task
from training.loop import write_whole
from training.reproduce import commit, machine

SPLITS = ("dev_seen", "dev_unseen", "dev_canonical")


class Record:
    """What was measured, in a file that is whole after every run. Several processes may fill one file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._commit = commit()  # of the code that runs, whatever the tree becomes meanwhile

    @property
    def content(self) -> dict[str, Any]:
        """All that any process has added by now."""
        if not self._file.exists():
            return {"machine": machine(), "start": {}, "stages": {}, "rows": []}
        content: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return content

    def has(self, group: str, name: str, seed: int) -> bool:
        """Whether a run is there; of a rival both ends count as one."""
        rows = self.content["rows"]
        return (group, name, seed) in {
            (row["group"], row["variant"].partition(", equal")[0], row["seed"]) for row in rows
        }

    def add_start(self, row: Row) -> None:
        """Keep the measures of what the loop starts from."""
        with self._changing() as content:
            content["start"] = row

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Keep rows of runs; they name the commit that measured them."""
        stamped = self._stamped(rows)
        with self._changing() as content:
            content["rows"] += stamped

    def add_stages(self, split: str, rows: Iterable[Row]) -> None:
        """Keep the rows of a split."""
        stamped = self._stamped(rows)
        with self._changing() as content:
            content["stages"][split] = stamped

    def _stamped(self, rows: Iterable[Row]) -> list[Row]:
        return [row | {"commit": self._commit} for row in rows]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        with alone(self._file.parent):  # the folder is what is locked; the file is another one each time
            content = self.content
            yield content
            write_whole(self._file, json.dumps(content, indent=1) + "\n")


def fill(record: Record, plan: Plan, runs: Path, groups: Sequence[str] = ()) -> None:
    """Run and measure what the record lacks: first the loop and its dev splits, then the others by seed.

    Args:
        record: of what is there.
        plan: of all that there should be.
        runs: folder of the runs.
        groups: which of the others to run; all for want of any.
    """
    same, *others = plan.variants
    order = [(same, seed) for seed in plan.seeds]
    order += [
        (variant, seed) for seed in plan.seeds for variant in others if not groups or variant.group in groups
    ]
    todo = [one for one in order if not record.has(one[0].group, one[0].name, one[1])]
    splits = [split for split in SPLITS if split not in record.content["stages"]]
    if not (todo or splits):
        return
    bench = Bench(plan, runs)
    record.add_start(bench.start)
    for variant, seed in tqdm(todo, unit="run"):
        if variant != same:
            _fill_stages(record, plan, bench, splits)
            splits = []
        record.add_rows(bench.rows(variant, seed))
    _fill_stages(record, plan, bench, splits)


def in_order(content: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The record with its rows as the plan has them, whichever were run first."""
    places = {(variant.group, variant.name): place for place, variant in enumerate(plan.variants)}

    def place(row: Mapping[str, Any]) -> tuple[int, str, int]:
        return places[row["group"], row["variant"].partition(", equal")[0]], row["variant"], row["seed"]

    return {**content, "rows": sorted(content["rows"], key=place)}


def _fill_stages(record: Record, plan: Plan, bench: Bench, splits: Sequence[str]) -> None:
    for split in splits:
        checkpoints = [plan.loop.checkpoint, *map(bench.checkpoint, plan.seeds)]
        names = ["start", *(f"seed {seed}" for seed in plan.seeds)]
        task = read_task(plan.loop.data_dir / "jobs", split)
        rows = compare(task, checkpoints, plan.loop.relevance, names=names)
        record.add_stages(split, rows)


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
    parser.add_argument(
        "--groups",
        nargs="+",
        default=(),
        metavar="GROUP",
        help="these alone; those that compare seconds (loss, sync) want the machine to themselves",
    )
    args = parser.parse_args(argv)
    record = Record(args.out)
    plan = read_config(args.config, Plan)
    if unknown := set(args.groups) - {variant.group for variant in plan.variants}:
        parser.error(f"--groups: {args.config} has no {', '.join(sorted(unknown))}")
    fill(record, plan, args.runs, args.groups)
    content = in_order(record.content, plan)
    draw_ablations(content, args.plots)
    args.table.write_text(table(content), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
