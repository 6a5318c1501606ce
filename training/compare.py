"""Checkpoints against one another through the staged stack: `python -m training.compare --split S A B ...`.

The first is what the others are compared with. For each arm of `training.evaluate_stages` a row per
checkpoint has nDCG@10 and its paired difference to the first one's, with a 95 % bootstrap interval over
queries; `mean of the others` takes each query's mean over them, as for the seeds of one recipe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import CheckpointError
from app.relevance.choice import DEFAULT_RELEVANCE
from training.datasets.beir import Task, read_task
from training.datasets.examples import DataError
from training.datasets.typos import with_typos
from training.evaluate_stages import arm_values
from training.measures import NDCG, Floats, bootstrap
from training.search import Stack
from training.served import ServedRewriter, served_relevance

ARMS = ("none", "finerank", "parallel", "alone")
OTHERS = "mean of the others"


def compare(
    task: Task,
    checkpoints: Sequence[Path],
    relevance: Path,
    *,
    names: Sequence[str] = (),
    only_judged: bool = False,
) -> list[dict[str, Any]]:
    """Return the rows; every checkpoint is served with its own confidence.

    Args:
        task: a split.
        checkpoints: folders; the first is compared with.
        relevance: folder of the relevance model.
        names: of the checkpoints in the rows, for want of which their folders stand there.
        only_judged: see `training.evaluate_stages.arm_values`.

    Raises:
        CheckpointError: a checkpoint or the relevance model cannot be used.
    """
    queries = [query.text for query in task.queries]
    shown = [ServedRewriter(checkpoint).rewrite(queries) for checkpoint in checkpoints]

    async def values() -> list[dict[str, Floats]]:
        model = served_relevance(relevance)
        stack = await Stack.over(task.documents, model)  # one for all: what two write alike is scored once
        found = []
        for rewrites in shown:
            own = {query.query_id: list(said) for query, said in zip(task.queries, rewrites, strict=True)}
            measured = await arm_values(task, stack, own, arms=ARMS, only_judged=only_judged)
            found.append({arm: measured[arm][NDCG] for arm in ARMS})
        await model.close()
        return found

    names = names or [str(checkpoint) for checkpoint in checkpoints]
    return rows_of(dict(zip(names, asyncio.run(values()), strict=True)))


def rows_of(values: Mapping[str, Mapping[str, Floats]]) -> list[dict[str, Any]]:
    """Return the rows of checkpoint -> arm -> nDCG@10 of each query; the first is compared with."""
    first, *others = values
    rows = []
    for arm in values[first]:
        systems = {name: values[name][arm] for name in values}
        if len(others) > 1:
            systems[OTHERS] = np.mean([values[name][arm] for name in others], axis=0)
        for name, found in systems.items():
            delta = bootstrap(found - systems[first])
            rows.append(
                {
                    "arm": arm,
                    "checkpoint": name,
                    NDCG: round(float(found.mean()), 4),
                    "delta": round(delta.mean, 4),
                    "delta_ci": [round(delta.low, 4), round(delta.high, 4)],
                }
            )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print one row a line. Returns 0, or 2 when that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders; the first is compared with")
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--split", required=True)
    parser.add_argument("--typos", type=int, metavar="SEED", help="put one seeded typo in every query")
    parser.add_argument("--only-judged", action="store_true", help="rank judged documents alone")
    parser.add_argument("--relevance", type=Path, default=DEFAULT_RELEVANCE)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows there too")
    args = parser.parse_args(argv)
    try:
        task = read_task(args.data, args.split)
        if args.typos is not None:
            task = task.with_queries(with_typos(task.queries, args.typos))
        rows = compare(task, args.checkpoints, args.relevance, only_judged=args.only_judged)
    except (DataError, CheckpointError) as error:
        sys.stderr.write(f"training.compare: {error}\n")
        return 2
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    if args.json is not None:
        record = {"split": args.split, "typos": args.typos, "only_judged": args.only_judged, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
