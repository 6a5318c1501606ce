"""Asks the heads of the relevance model, by a deadline. It never raises: a failure is a value, logged here.

Work that by its typical time cannot finish is not begun, and what misses the deadline is cancelled and left
behind, whether or not it obeys.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from app.contracts.reasons import Reason
from app.errors import RelevanceError
from app.signals.typical import TypicalSeconds
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from app.relevance.base import Content, Floats, Relevance
    from app.rewrite.deadline import Deadline

T = TypeVar("T")
Head = Literal["embed_queries", "embed_documents", "score"]
Scores = list[list[float | None]]


class Heads:
    """The relevance model as the stages see it; without one, every answer is `relevance_unavailable`."""

    def __init__(self, relevance: Relevance | None, *, clock: Callable[[], float]) -> None:
        self._relevance = relevance
        self._clock = clock
        self._typical: dict[Head, TypicalSeconds] = {head: TypicalSeconds() for head in get_args(Head)}

    @property
    def image_dim(self) -> int:
        """Floats of an image embedding; 0 where none is read."""
        return self._relevance.image_dim if self._relevance else 0

    @property
    def digest(self) -> str | None:
        """Of the relevance model; None where there is none."""
        return self._relevance.digest if self._relevance else None

    async def embed(self, texts: Sequence[str], deadline: Deadline) -> Floats | Reason:
        """One row per query."""

        async def work(model: Relevance) -> Floats:
            return _matrix(await model.embed_queries(texts), len(texts))

        return await self._ask("embed_queries", len(texts), work, deadline)

    async def similarities(
        self, queries: Floats, documents: Sequence[Content], deadline: Deadline
    ) -> Scores | Reason:
        """Per query, s(q, d) of each document, by their embeddings."""

        async def work(model: Relevance) -> Scores:
            embedded = _matrix(await model.embed_documents(self._readable(documents)), len(documents))
            return [_numbers(model.similarity(query, embedded), len(documents)) for query in queries]

        return await self._ask("embed_documents", len(documents), work, deadline)

    async def scores(
        self, texts: Sequence[str], documents: Sequence[Content], deadline: Deadline
    ) -> Scores | Reason:
        """Per query, s(q, d) of each document, read together. A query that fails alone has no scores."""

        async def row(model: Relevance, text: str, readable: Sequence[Content]) -> list[float | None]:
            return _numbers(await model.score(text, readable), len(documents))

        async def work(model: Relevance) -> Scores:
            readable = self._readable(documents)
            # Together, because they share batches.
            rows = await asyncio.gather(
                *(row(model, text, readable) for text in texts), return_exceptions=True
            )
            failed = [error for error in rows if isinstance(error, BaseException)]
            if len(failed) == len(rows):
                raise failed[0]
            for error in failed:
                _log(error)
            nothing: list[float | None] = [None] * len(documents)
            return [nothing if isinstance(found, BaseException) else found for found in rows]

        return await self._ask("score", len(texts) * len(documents), work, deadline)

    async def _ask(
        self,
        head: Head,
        items: int,
        work: Callable[[Relevance], Coroutine[Any, Any, T]],
        deadline: Deadline,
    ) -> T | Reason:
        if self._relevance is None:
            return Reason.RELEVANCE_UNAVAILABLE
        typical = self._typical[head]
        began = self._clock()
        remaining_s = deadline.remaining_s(began)
        if not typical.fits(items, remaining_s):
            return Reason.DEADLINE
        task = asyncio.create_task(work(self._relevance))
        task.add_done_callback(_retrieve)
        try:
            await asyncio.wait((task,), timeout=remaining_s)
        finally:
            finished = task.done()
            task.cancel()
        took_s = self._clock() - began
        if not finished:
            typical.saw_cut_off(took_s, items)
            return Reason.DEADLINE
        try:
            result = task.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- the promise of this module
            return _log(error)
        typical.saw(took_s, items)
        return result

    def _readable(self, documents: Sequence[Content]) -> Sequence[Content]:
        """The documents without images where the model reads none."""
        return documents if self.image_dim else [replace(document, image=None) for document in documents]


def _matrix(found: Floats, rows: int) -> Floats:
    if found.ndim != 2 or len(found) != rows:  # noqa: PLR2004 -- what a matrix is
        raise ValueError(f"the relevance model gave embeddings of shape {found.shape} for {rows} texts")
    return found


def _numbers(found: Sequence[float], expected: int) -> list[float | None]:
    if len(found) != expected:
        raise ValueError(f"the relevance model gave {len(found)} scores for {expected} documents")
    return [float(score) for score in found]  # numpy's are none to JSON


def _log(error: BaseException) -> Reason:
    gone = isinstance(error, RelevanceError | asyncio.CancelledError)
    reason = Reason.RELEVANCE_UNAVAILABLE if gone else Reason.RELEVANCE_ERROR
    LOGGER.warning("relevance failed", exc_info=error, extra={"fields": {"reason": reason}})
    return reason


def _retrieve(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is not "never retrieved"."""
    if not task.cancelled():
        task.exception()
