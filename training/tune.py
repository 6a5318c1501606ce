"""Choosing how much a rewrite may weigh, on the validation task alone: `python -m training.tune --data DIR`.

Queries are of three sides: titles held out of training (`seen`), titles of occupations that the model never
saw (`unseen`), and the canonical titles of both kinds of occupation (`canonical`); labels are
labels_train.tsv. For each setting (the threshold below which a rewrite is withheld, and ceiling and sharpness
of `app.contracts.fusion.recall_weight`) the table has the mean change of nDCG@10 over the original alone. The
best one gains most on `seen` among those that lose at most `MAX_LOSS` elsewhere with every retriever.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

from app.contracts.fusion import recall_weight
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from training.datasets.beir import Task
from training.datasets.jobs import LabelledTitle, read_jobs
from training.datasets.validation import validation_task
from training.evaluate import RETRIEVERS, Plan, Rewrite, Rewriter, parallel_plan, ranked
from training.measures import NDCG, per_query
from training.retrieval import Rankings
from training.served import NUM_REWRITES, ServedRewriter
from training.teachers import Teachers

THRESHOLDS = (0.02, 0.1, 0.2)
SHARPNESS = (1.0, 1.5, 2.0)
CEILINGS = (1.5, 2.0, 3.0, 4.0)
MAX_LOSS = {"unseen": 0.006, "canonical": 0.004}  # below what may be lost elsewhere: 0.010 and 0.005
MAX_QUERIES, SEED = 600, 11  # per side: a sweep takes minutes, not hours


class TeacherRewriter:
    """The training's own classifiers as a rewriter; confidence is their probability, as it comes."""

    def __init__(self, teachers: Teachers) -> None:
        self._teachers = teachers

    def rewrite(self, queries: Sequence[str]) -> list[list[Rewrite]]:
        """Return the most probable labels of each query that are not the query itself."""
        return [
            [
                Rewrite(title, probability)
                for title, probability in zip(labels.titles, labels.probabilities, strict=True)
                if title.casefold() != query.casefold()
            ][:NUM_REWRITES]
            for query, labels in zip(queries, self._teachers.label(queries), strict=True)
        ]


def sweep(jobs_dir: Path, rewriter: Rewriter) -> list[dict[str, float]]:
    """Return one row per setting: what it is, then coverage and change of nDCG@10 per side and retriever."""
    tasks = validation_sides(jobs_dir)
    rankings = Rankings.over(tasks["seen"].documents)
    shown = {side: rewriter.rewrite([q.text for q in task.queries]) for side, task in tasks.items()}
    none = {
        (side, retriever): _mean_ndcg(task, rankings, retriever, [[(q.text, 1.0)] for q in task.queries])
        for side, task in tasks.items()
        for retriever in RETRIEVERS
    }
    rows = []
    for threshold, sharpness, ceiling in product(THRESHOLDS, SHARPNESS, CEILINGS):
        weigh = partial(recall_weight, ceiling=ceiling, sharpness=sharpness)
        row = {"threshold": threshold, "sharpness": sharpness, "ceiling": ceiling}
        for side, task in tasks.items():
            row[f"{side} coverage"] = _coverage(shown[side], threshold)
            plans = [
                parallel_plan(query.text, [r for r in found if r.confidence >= threshold], weigh)
                for query, found in zip(task.queries, shown[side], strict=True)
            ]
            for retriever in RETRIEVERS:
                gain = _mean_ndcg(task, rankings, retriever, plans) - none[side, retriever]
                row[f"{side} {retriever}"] = round(gain, 4)
        rows.append(row)
    return rows


def validation_sides(jobs_dir: Path, most: int = MAX_QUERIES) -> dict[str, Task]:
    """The validation tasks, of at most `most` titles each but for the canonical ones."""
    split = read_jobs(jobs_dir)
    canonical = [LabelledTitle(title, code) for code, title in (split.canonical | split.hidden).items()]
    return {
        side: validation_task(jobs_dir, [(t.title, t.onet_code) for t in titles])
        for side, titles in (
            ("seen", _some(split.seen, most)),
            ("unseen", _some(split.unseen, most)),
            ("canonical", canonical),
        )
    }


def best(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the row that gains most on `seen`, within the loss allowed on the other sides."""
    safe = [
        row
        for row in rows
        if all(row[f"{side} {r}"] >= -loss for side, loss in MAX_LOSS.items() for r in RETRIEVERS)
    ]
    return max(safe or rows, key=lambda row: sum(row[f"seen {r}"] for r in RETRIEVERS))


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep and print."""
    parser = argparse.ArgumentParser(
        prog="python -m training.tune", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the jobs folder")
    judged = parser.add_mutually_exclusive_group()
    judged.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    judged.add_argument(
        "--teachers", action="store_true", help="judge the teachers in its place: what a student could reach"
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    rewriter: Rewriter = (
        TeacherRewriter(Teachers(read_jobs(args.data)))
        if args.teachers
        else ServedRewriter(args.checkpoint, min_confidence=0.0)
    )
    rows = sweep(args.data, rewriter)
    lines = ["  ".join(f"{name:>15}" for name in rows[0])]
    lines += ["  ".join(f"{value:15.4f}" for value in row.values()) for row in rows]
    sys.stdout.write("\n".join([*lines, f"best: {best(rows)}"]) + "\n")
    if args.json:
        args.json.write_text(
            json.dumps({"rows": rows, "best": best(rows)}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


def _some(titles: Sequence[LabelledTitle], most: int) -> Sequence[LabelledTitle]:
    return Random(SEED).sample(titles, min(most, len(titles)))


def _mean_ndcg(task: Task, rankings: Rankings, retriever: str, plans: Sequence[Plan]) -> float:
    ids = [query.query_id for query in task.queries]
    found = dict(zip(ids, ranked(rankings, retriever, plans), strict=True))
    return float(per_query(task.qrels, ids, found)[NDCG].mean())


def _coverage(shown: Sequence[Sequence[Rewrite]], threshold: float) -> float:
    return sum(bool(found) and found[0].confidence >= threshold for found in shown) / len(shown)


if __name__ == "__main__":
    sys.exit(main())
