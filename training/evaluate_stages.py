"""What a rewriter does to the staged stack: every way to use a rewrite, against the original alone.

none       the original alone                                         the baseline of every delta
finerank   rewrites at finerank only                                  the first launch
parallel   rewrites at recall, rawrank and finerank                   the second
alone      the best rewrite in place of the original                  why it may not replace it
random     the rewrites of another query, at all stages               what a wrong rewriter costs
empty      no rewrite at any stage                                    must be `none`, bit for bit
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from training.datasets.beir import Qrels, Task
from training.evaluate import Rewrite, Rewriter, Row, row
from training.measures import Floats, judged, per_query
from training.search import SHIPPED, Knobs, Plan, Stack
from training.served import served_relevance

ARMS = ("none", "finerank", "parallel", "alone", "random", "empty")
SEED = 4

Values = Mapping[str, Floats]
"""Measure -> one value a query."""


def measure_stages(
    task: Task,
    rewriter: Rewriter,
    relevance: Path,
    *,
    arms: Sequence[str] = ARMS,
    only_judged: bool = False,
) -> list[Row]:
    """Rewrite the queries of `task`, index its corpus with the model in `relevance`, measure the arms."""
    shown = rewriter.rewrite([query.text for query in task.queries])
    rewrites = {query.query_id: found for query, found in zip(task.queries, shown, strict=True)}

    async def measure() -> list[Row]:
        model = served_relevance(relevance)
        stack = await Stack.over(task.documents, model)
        rows = stage_rows(await arm_values(task, stack, rewrites, arms=arms, only_judged=only_judged))
        await model.close()
        return rows

    return asyncio.run(measure())


async def arm_values(
    task: Task,
    stack: Stack,
    rewrites: Mapping[str, Sequence[Rewrite]],
    *,
    knobs: Knobs = SHIPPED,
    arms: Sequence[str] = ARMS,
    only_judged: bool = False,
) -> dict[str, Values]:
    """Return the measures of each query by arm, in the order of the queries that have a relevant document.

    Args:
        task: queries and qrels. Queries without a relevant document are left out.
        stack: over the corpus of `task`.
        rewrites: query_id -> what the rewriter shows, best first; a query it lacks has none.
        knobs: how much rewrites may weigh.
        arms: some of ARMS, `none` first.
        only_judged: measure rankings of the judged documents alone, where most are not judged.
    """
    ids = judged(task.qrels, [query.query_id for query in task.queries])
    text = {query.query_id: query.text for query in task.queries}
    values: dict[str, Values] = {}
    for arm in arms:
        plans = plans_of(arm, ids, text, rewrites, knobs)
        rankings = dict(zip(ids, await stack.search(plans), strict=True))
        if only_judged:
            rankings = {
                query_id: of_judged(task.qrels, query_id, found) for query_id, found in rankings.items()
            }
        values[arm] = per_query(task.qrels, ids, rankings)
    return values


def stage_rows(values: Mapping[str, Values]) -> list[Row]:
    """Return a row for each arm of `arm_values`, compared with `none`."""
    return [row("staged", arm, found, values["none"]) for arm, found in values.items()]


def plans_of(
    arm: str,
    ids: Sequence[str],
    text: Mapping[str, str],
    rewrites: Mapping[str, Sequence[Rewrite]],
    knobs: Knobs,
) -> list[Plan]:
    """One plan per query."""
    used = [tuple(rewrites.get(query_id, ())) for query_id in ids]
    plans = [Plan(text[query_id], knobs=knobs) for query_id in ids]
    match arm:
        case "none":
            return [replace(plan, stages=frozenset()) for plan in plans]
        case "empty":
            return plans
        case "finerank":
            only = frozenset({"finerank"})
            return [replace(plan, rewrites=own, stages=only) for plan, own in zip(plans, used, strict=True)]
        case "parallel":
            return [replace(plan, rewrites=own) for plan, own in zip(plans, used, strict=True)]
        case "alone":
            return [
                replace(plan, query=own[0].text) if own else plan
                for plan, own in zip(plans, used, strict=True)
            ]
        case "random":
            others = list(used)
            Random(SEED).shuffle(others)
            return [replace(plan, rewrites=other) for plan, other in zip(plans, others, strict=True)]
    raise ValueError(f"no arm {arm!r}")


def of_judged(qrels: Qrels, query_id: str, ranking: Sequence[str]) -> list[str]:
    """The judged documents of a ranking, in its order."""
    return [doc_id for doc_id in ranking if doc_id in qrels[query_id]]
