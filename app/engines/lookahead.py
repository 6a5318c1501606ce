"""What a beam reads of an engine that keeps its logits: one stream a row, running ahead of the search.

A request to such an engine costs far more than a token of it: it is built, sent to another process, scheduled
and read from its first token on. A stream therefore goes on from a row along the most probable tokens, up to
the end, and says at each what was probable. Most rows of the next steps lie on a stream that runs already:
a beam of 4 over job titles takes 8 requests and 42 tokens where one-token steps take 32 of each. The answer
is the same, for the distribution after a row does not depend on who asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    Row = tuple[int, ...]
    Distribution = Mapping[int, float]
    Stream = AsyncIterator[tuple[int, Distribution]]


class Lookahead:
    """The distributions after the rows of one search.

    Args:
        stream: continues a row, and gives of each step the most probable token, with which it goes on, and
            the log-probabilities of the best ones; it ends after the end token, or where no more may come.
    """

    def __init__(self, stream: Callable[[Row], Stream]) -> None:
        self._stream = stream
        self._known: dict[Row, asyncio.Future[Distribution]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def after(self, rows: Sequence[Row]) -> list[Distribution]:
        """The distribution after each of `rows`; raises what the stream raised."""
        for row in rows:
            if row not in self._known:
                self._expect(row)
                task = asyncio.create_task(self._follow(row))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        return [await self._known[row] for row in rows]

    def close(self) -> None:
        """Stop the streams that still run, without waiting."""
        for task in self._running:
            task.cancel()

    def _expect(self, row: Row) -> asyncio.Future[Distribution]:
        future = self._known[row] = asyncio.get_running_loop().create_future()
        return future

    async def _follow(self, row: Row) -> None:
        here = self._known[row]
        error: Exception = EngineUnavailableError("the engine stopped before the search was finished")
        try:
            async for token, distribution in self._stream(row):
                row = (*row, token)
                # Known to be on its way before anybody can ask for it.
                there = self._expect(row)
                if not here.done():  # cancelled with the one who waited
                    here.set_result(distribution)
                here = there
        except Exception as raised:  # noqa: BLE001 -- it is raised where the search waits
            error = raised
        if not here.done():
            here.set_exception(error)
            here.exception()  # nobody waits for what comes after an end: that is no error to report
