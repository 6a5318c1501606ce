"""What a search brings up, given what the service answered: each page computed once, and kept on disk.

A ranking is a function of the query, the rewrites and the stages that may use them; the stack computes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluate import Rewrite
from training.measures import NDCG, per_query
from training.needs import Need
from training.search import Plan, Stack
from training.simulate import SHOWN


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown: doc ids, best first, and their nDCG@10 by labels."""

    shown: tuple[str, ...]
    ndcg: float


class Pages:
    """The search engine behind the service.

    Args:
        stack: ranks.
        file: JSON lines of what was ranked before, for this stack; more are added.
    """

    def __init__(self, stack: Stack, file: Path) -> None:
        self._stack, self._file = stack, file
        self._ranked: dict[str, list[str]] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                known = json.loads(line)
                self._ranked[known["asked"]] = known["shown"]
        self._pages: dict[str, asyncio.Task[Page]] = {}

    async def of(self, need: Need, answer: Mapping[str, Any]) -> Page:
        """Return what is shown for a need whose query the service has answered so."""
        rewrites = [[one["text"], one["confidence"]] for one in answer["rewrites"]]
        asked = json.dumps([need.query, rewrites, answer["stages"] if rewrites else []])
        if asked not in self._pages:
            self._pages[asked] = asyncio.create_task(self._page(asked, need))
        return await asyncio.shield(self._pages[asked])

    async def _page(self, asked: str, need: Need) -> Page:
        if asked not in self._ranked:
            query, rewrites, stages = json.loads(asked)
            plan = Plan(query, tuple(Rewrite(*one) for one in rewrites), frozenset(stages))
            (ranking,) = await self._stack.search([plan])
            self._ranked[asked] = ranking[:SHOWN]
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"asked": asked, "shown": ranking[:SHOWN]}) + "\n")
        shown = self._ranked[asked]
        qrels = {need.query: dict.fromkeys(need.relevant, 1)}
        (ndcg,) = per_query(qrels, [need.query], {need.query: shown})[NDCG]
        return Page(tuple(shown), float(ndcg))
