"""Checkpoint and relevance model as users meet them, in process, for evaluation."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from app.contracts.prompt import NO_CONTEXT, Context
from app.main import create_app
from app.relevance.model import OnnxRelevance
from app.rewrite.answer import Answer, Query
from app.rewrite.deadline import deadline_of
from app.settings import Settings
from training.evaluate import Rewrite

NUM_REWRITES = 4
CONCURRENCY = 32
PATIENCE_MS = 60_000


def served_relevance(path: Path, *, threads: int = 0) -> OnnxRelevance:
    """The relevance model of a folder as it serves, with every query waiting at once; 0 threads: all cores.

    Raises CheckpointError where the folder cannot be used.
    """
    return OnnxRelevance(path, threads=threads or os.cpu_count() or 1, max_rows=1 << 30, max_known=0)


class ServedRewriter:
    """Rewrites through `RewriteService`: engine, guard and abstention included.

    Args:
        checkpoint: the folder to serve.
        min_confidence: threshold in place of the checkpoint's own; 0 shows everything the guard lets pass.
    """

    def __init__(self, checkpoint: Path, *, min_confidence: float | None = None) -> None:
        self._settings = Settings(
            checkpoint=checkpoint,
            min_confidence=min_confidence,
            deadline_ms=PATIENCE_MS,
            cache_entries=0,
            relevance="none",  # rewrites are all that is asked of it
        )

    def rewrite(self, queries: Sequence[str]) -> list[list[Rewrite]]:
        """Return the rewrites of each query, best first; an empty list is an abstention."""
        return self.rewrite_in_context([(query, NO_CONTEXT) for query in queries])

    def rewrite_in_context(self, asked: Sequence[tuple[str, Context]]) -> list[list[Rewrite]]:
        """Return the same for each (query, context)."""
        return [
            [Rewrite(rewrite.text, rewrite.confidence) for rewrite in answer.rewrites]
            for answer in self.answers(asked)
        ]

    def answers(self, asked: Sequence[tuple[str, Context]]) -> list[Answer]:
        """Return the service's answer to each (query, context), in order."""
        return asyncio.run(self._answers(asked))

    async def _answers(self, asked: Sequence[tuple[str, Context]]) -> list[Answer]:
        app = create_app(self._settings)
        free = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int, text: str, context: Context) -> Answer:
            query = Query(text=text, query_id=str(number), context=context, num_rewrites=NUM_REWRITES)
            async with free:
                deadline = deadline_of(time.monotonic(), body_ms=None, header_ms=None, default_ms=PATIENCE_MS)
                answer: Answer = await app.state.service.rewrite(query, deadline)
                return answer

        async with app.router.lifespan_context(app):
            return await asyncio.gather(*(one(n, text, context) for n, (text, context) in enumerate(asked)))
