"""The most that a rewriter can break: `python -m training.blast_radius --data DIR/jobs --json OUT`.

The adversary draws SAMPLES completions of each query from the checkpoint at temperature 1, knows the gold
label, and shows the one that loses most nDCG@10 in the whole stack. Twice: with the confidence that the
service gives that completion beside its beam's, shown or withheld as the service would; and lying, with the
confidence of the best rewrite that the service shows, or of half certain where it shows none. Beside it what
honest rewrites gain, for each c; the share that a c leaves of the gain is against the largest c.

On validation titles (`training.datasets.validation`) unless a split is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from app.contracts.prompt import NO_CONTEXT, render
from app.engines.base import GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from app.relevance.choice import DEFAULT_RELEVANCE
from app.rewrite.guard import Limits
from app.rewrite.judge import judge
from training.datasets.beir import Query, Task, read_task
from training.evaluate import Rewrite
from training.evaluate_stages import plans_of
from training.measures import NDCG, bootstrap, per_query
from training.search import SHIPPED, Knobs, Plan, Stack
from training.served import NUM_REWRITES, served_relevance
from training.tune import validation_sides

SAMPLES, QUERIES, SEED = 64, 60, 17
FACTORS = (1.5, 3.0, 10.0, 30.0, 100.0, 1e6)
"""The values of c; the last binds nothing."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the service shows for a query, and all drawn that pass its guard; confidence 0 where withheld."""

    honest: tuple[Rewrite, ...]
    samples: tuple[Rewrite, ...]

    @property
    def lies(self) -> tuple[Rewrite, ...]:
        """The samples with the confidence of the best honest rewrite."""
        best = max((rewrite.confidence for rewrite in self.honest), default=0.5)
        return tuple(replace(sample, confidence=best) for sample in self.samples)


async def worst(
    stack: Stack, task: Task, shown: Mapping[str, Shown], knobs: Knobs, *, lying: bool
) -> list[float]:
    """nDCG@10 of each query under its worst sample; of the original where none passed the guard."""
    found = []
    for query in task.queries:
        own = shown[query.query_id]
        samples = own.lies if lying else own.samples
        plans = [_plan(query, (sample,), knobs) for sample in samples] or [_plan(query, (), knobs)]
        rankings = await stack.search(plans)
        values = [
            float(per_query(task.qrels, [query.query_id], {query.query_id: ranking})[NDCG][0])
            for ranking in rankings
        ]
        found.append(min(values))
    return found


async def measure(
    stack: Stack, task: Task, shown: Mapping[str, Shown], knobs: Knobs
) -> list[dict[str, object]]:
    """One row for each c."""
    ids = [query.query_id for query in task.queries]
    text = {query.query_id: query.text for query in task.queries}
    honest = {query_id: own.honest for query_id, own in shown.items()}

    async def ndcg(arm: str, own: Knobs) -> np.ndarray:
        rankings = await stack.search(plans_of(arm, ids, text, honest, own))
        return per_query(task.qrels, ids, dict(zip(ids, rankings, strict=True)))[NDCG]

    none = await ndcg("none", knobs)
    rows: list[dict[str, object]] = []
    for factor in FACTORS:
        own = replace(knobs, max_factor=factor)
        row: dict[str, object] = {"c": factor, "queries": len(ids), "original": round(float(none.mean()), 4)}
        changes = {
            "gain": await ndcg("parallel", own) - none,
            "worst": np.array(await worst(stack, task, shown, own, lying=False)) - none,
            "worst_lying": np.array(await worst(stack, task, shown, own, lying=True)) - none,
        }
        for name, change in changes.items():
            estimate = bootstrap(change)
            row[name] = round(estimate.mean, 4)
            row[f"{name}_ci"] = [round(estimate.low, 4), round(estimate.high, 4)]
        rows.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    return rows


async def show(path: Path, queries: Sequence[Query]) -> dict[str, Shown]:
    """What the checkpoint's service shows for each query, and SAMPLES draws of it, each text once."""
    checkpoint = load_checkpoint(path)
    engine = EmbeddedEngine(
        path, weights_digest=checkpoint.weights_digest, threads=os.cpu_count() or 1, max_queue=1024
    )
    await engine.start()
    judged = partial(
        judge,
        context=NO_CONTEXT,
        checkpoint_id=checkpoint.id,
        calibration=checkpoint.calibration,
        limits=Limits(),
    )
    threshold = checkpoint.calibration.threshold

    async def one(query: str) -> Shown:
        request = GenerationRequest(prompt=render(query, NO_CONTEXT), num_completions=NUM_REWRITES)
        beam = await engine.generate(request)
        drawn = await engine.generate(
            replace(request, mode="sample", num_completions=SAMPLES, seed=zlib.crc32(query.encode()))
        )
        texts = {completion.text: completion for completion in (*drawn.completions, *beam.completions)}
        every = replace(beam, completions=tuple(texts.values()))
        honest = judged(query, generation=beam, min_confidence=threshold).rewrites
        samples = judged(query, generation=every, min_confidence=0.0).rewrites
        return Shown(
            tuple(Rewrite(found.text, found.confidence) for found in honest),
            tuple(
                Rewrite(found.text, found.confidence if found.confidence >= threshold else 0.0)
                for found in samples
            ),
        )

    found = await asyncio.gather(*(one(query.text) for query in queries))
    await engine.close()
    return {query.query_id: own for query, own in zip(queries, found, strict=True)}


def _plan(query: Query, rewrites: tuple[Rewrite, ...], knobs: Knobs) -> Plan:
    (plan,) = plans_of(
        "parallel", [query.query_id], {query.query_id: query.text}, {query.query_id: rewrites}, knobs
    )
    return plan


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the jobs folder")
    parser.add_argument("--split", help="of the folder's queries; without one, validation titles (seen)")
    parser.add_argument("--relevance", type=Path, default=DEFAULT_RELEVANCE)
    parser.add_argument("--queries", type=int, default=QUERIES, help="at most, drawn at random")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = read_task(options.data, options.split) if options.split else validation_sides(options.data)["seen"]
    few = Random(SEED).sample(task.queries, min(options.queries, len(task.queries)))
    task = task.with_queries(tuple(query for query in few if task.qrels.get(query.query_id)))

    async def run() -> list[dict[str, object]]:
        model = served_relevance(options.relevance)
        shown = await show(DEFAULT_CHECKPOINT, task.queries)
        rows = await measure(await Stack.over(task.documents, model), task, shown, SHIPPED)
        await model.close()
        return rows

    rows = asyncio.run(run())
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
