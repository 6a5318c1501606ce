"""How much a rewrite may weigh in the stages: `python -m training.sweep_stages --data DIR/jobs --json OUT`.

On the validation task alone (`training.datasets.validation`), sides as in `training.tune`, `seen` without
titles of occupations that the relevance model has clicks of: for each b of rawrank and of finerank, c and
break-even the mean change of nDCG@10 over the stack without rewrites, and the lower end of its 95 % interval,
with all stages and with finerank only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random

from app.contracts.fusion import BREAK_EVEN
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.relevance.choice import DEFAULT_RELEVANCE
from app.relevance.model import OnnxRelevance
from training.datasets.beir import Task
from training.datasets.judgements import click_side
from training.evaluate import Rewrite
from training.evaluate_stages import arm_values, stage_rows
from training.search import Knobs, Stack
from training.served import ServedRewriter, served_relevance
from training.tune import SEED, validation_sides

RAWRANK = (0.5, 1.0)
FINERANK = (0.5, 1.0, 1.5, 2.0)
FACTORS = (3.0, 10.0, 30.0, 100.0)
ARMS = ("none", "finerank", "parallel")


async def sweep(
    sides: dict[str, tuple[Task, dict[str, list[Rewrite]]]],
    relevance: OnnxRelevance,
    settings: Sequence[Knobs],
) -> list[dict[str, float]]:
    """One row for each setting: change of nDCG@10 by side and arm."""
    first = next(iter(sides.values()))[0]
    stack = await Stack.over(first.documents, relevance)
    rows = []
    for knobs in settings:
        row = {
            "rawrank": knobs.rawrank_weight,
            "finerank": knobs.finerank_weight,
            "c": knobs.max_factor,
            "break_even": knobs.break_even,
        }
        for side, (task, rewrites) in sides.items():
            none, *arms = stage_rows(await arm_values(task, stack, rewrites, knobs=knobs, arms=ARMS))
            row[f"{side} none"] = round(none.ndcg, 4)
            for found in arms:
                row[f"{side} {found.rewrite}"] = round(found.delta, 4)
                row[f"{side} {found.rewrite} low"] = round(found.delta_ci[0], 4)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        rows.append(row)
    return rows


def clean_sides(jobs_dir: Path, most: int) -> dict[str, Task]:
    """At most `most` titles of each side, none of an occupation with clicks in training."""
    found = {}
    for side, task in validation_sides(jobs_dir, sys.maxsize).items():
        # Occupations of `unseen` are hidden whole, from the clicks too; of canonical titles so few are left
        # without clicks that all are taken, for what matters there is the loss.
        kept = [q for q in task.queries if side != "seen" or click_side(q.fields["onet_code"]) != "train"]
        found[side] = task.with_queries(Random(SEED).sample(kept, min(most, len(kept))))
    return found


def draw(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the change of nDCG@10 against b of finerank, a line for each c, into a PNG.

    A row of plots for each b of rawrank and break-even.
    """
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = [name for name in rows[0] if name.endswith("parallel")]
    kinds = list(dict.fromkeys((row["rawrank"], row["break_even"]) for row in rows))
    size = (4 * len(names), 3.2 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(names), figsize=size, sharex=True, sharey=True, squeeze=False)
    for line, kind in zip(axes, kinds, strict=True):
        for axis, name in zip(line, names, strict=True):
            chosen = [row for row in rows if (row["rawrank"], row["break_even"]) == kind]
            for factor in dict.fromkeys(row["c"] for row in chosen):
                points = [(row["finerank"], row[name]) for row in chosen if row["c"] == factor]
                axis.plot(*zip(*points, strict=True), marker="o", label=f"c = {factor:g}")
            axis.axhline(0, color="0.7", linewidth=1)
            axis.set_title(f"{name.split()[0]}, b of rawrank {kind[0]:g}, t {kind[1]:g}")
            axis.set_xlabel("b of finerank")
        line[0].set_ylabel("change of nDCG@10")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Sweep, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the jobs folder")
    parser.add_argument("--relevance", type=Path, default=DEFAULT_RELEVANCE)
    parser.add_argument("--queries", type=int, default=1000, help="of each side, at most")
    parser.add_argument("--rawrank", type=float, nargs="+", default=RAWRANK, help="b of rawrank to try")
    parser.add_argument("--finerank", type=float, nargs="+", default=FINERANK, help="b of finerank to try")
    parser.add_argument("--c", type=float, nargs="+", default=FACTORS, help="largest factors to try")
    parser.add_argument("--break-even", type=float, nargs="+", default=[BREAK_EVEN], help="see rank_weight")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rewriter = ServedRewriter(DEFAULT_CHECKPOINT)
    sides = {}
    for side, task in clean_sides(options.data, options.queries).items():
        shown = rewriter.rewrite([query.text for query in task.queries])
        sides[side] = (task, {q.query_id: found for q, found in zip(task.queries, shown, strict=True)})

    async def run() -> list[dict[str, float]]:
        relevance = served_relevance(options.relevance)
        tried = product(options.rawrank, options.finerank, options.c, options.break_even)
        rows = await sweep(sides, relevance, [Knobs(*values) for values in tried])
        await relevance.close()
        return rows

    rows = asyncio.run(run())
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
