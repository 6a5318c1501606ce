"""What people see, and how good it is: the staged stack, labels, and titles that nobody searches for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.config import LoopConfig
from training.evaluate import Rewrite
from training.measures import NDCG, Floats, bootstrap, per_query
from training.needs import Need
from training.policy_quality import CLICKED_APART, PolicyJudge, policy_sides
from training.retrieval import DenseRetriever
from training.search import Stack
from training.searches import read_documents
from training.served import ServedRewriter, served_relevance
from training.simulate import rankings
from training.weeks.drift import Wanted

SIDE, RETRIEVER = CLICKED_APART.split()
Rankings = list[list[str]]


class World:
    """All that is not the service.

    Args:
        loop: names corpus, models and labels; its checkpoint is the frozen one.
    """

    def __init__(self, loop: LoopConfig) -> None:
        self._loop = loop
        self._documents = read_documents(loop.logs[0].corpus)
        self._apart = policy_sides(loop.data_dir / "jobs")[SIDE]
        self._encoder = DenseRetriever(self._apart.documents)

    def shown(self, needs: Sequence[Need], serving: Path) -> dict[str, Rankings]:
        """Return what each need is shown by its query alone, by the frozen checkpoint, and by `serving`."""
        queries = [need.query for need in needs]
        kinds: dict[str, list[list[Rewrite]]] = {
            "original": [[] for _ in needs],
            "frozen": ServedRewriter(self._loop.checkpoint).rewrite(queries),
            "stable": ServedRewriter(serving).rewrite(queries),
        }

        async def search() -> dict[str, Rankings]:
            relevance = served_relevance(self._loop.relevance, threads=self._loop.num_threads)
            stack = await Stack.over(self._documents, relevance)
            found = {kind: await rankings(stack, needs, rewrites) for kind, rewrites in kinds.items()}
            await relevance.close()
            return found

        return asyncio.run(search())

    def apart(self, serving: Path, is_alive: Callable[[Wanted], bool]) -> dict[str, Floats]:
        """Return nDCG@10 of first choices alone, of frozen and `serving`, for titles that are alive."""

        def wanted(query_id: str) -> Wanted:
            return frozenset(one for one, grade in self._apart.qrels[query_id].items() if grade > 0)

        alive = [one for one in self._apart.queries if is_alive(wanted(one.query_id))]
        judge = PolicyJudge({SIDE: self._apart.with_queries(alive)}, {RETRIEVER: self._encoder})
        sampling, threads = self._loop.sampling, self._loop.num_threads
        return {
            kind: judge.per_query(folder, sampling, threads=threads)[CLICKED_APART]
            for kind, folder in (("frozen", self._loop.checkpoint), ("stable", serving))
        }


def traffic(needs: Sequence[Need], shown: Mapping[str, Rankings]) -> dict[str, Floats]:
    """Return nDCG@10 of what each need is shown, by what it wants. Pure."""
    ids = [str(place) for place in range(len(needs))]
    qrels = {one: dict.fromkeys(need.relevant, 1) for one, need in zip(ids, needs, strict=True)}
    return {
        kind: per_query(qrels, ids, dict(zip(ids, found, strict=True)))[NDCG] for kind, found in shown.items()
    }


def compared(values: Mapping[str, Floats]) -> dict[str, Any]:
    """Return means, and the gain of `stable` over `frozen` with its 95 % interval. Pure."""
    gain = bootstrap(values["stable"] - values["frozen"])
    means = {kind: float(value.mean()) for kind, value in values.items()}
    return {"queries": values["stable"].size, **means, "gain": asdict(gain)}
