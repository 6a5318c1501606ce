"""One thread that computes: rows of any number of callers in, buckets of similar length through the graph.

A caller's work waits no longer than for the buckets before it; what callers have given up is not computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from app.errors import RelevanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from app.relevance.base import Floats
    from app.relevance.texts import Row

BUCKET_TOKENS = 2048
"""A run is at most so many tokens, padding included: long enough to fill a core, short enough to give way."""

PADDING_RATIO = 0.15
"""A row joins a bucket while at most this share of it is padding."""


class RunsRows(Protocol):
    """A head: rows in, one result a row."""

    def run(self, rows: Sequence[Row]) -> Floats:
        """[rows, dim] or [rows]."""


@dataclass(eq=False, slots=True)
class Job:
    """Rows of one caller for one head, made when their turn comes, and the future that waits for them."""

    head: RunsRows
    make_rows: Callable[[], list[Row]]
    size: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Floats]
    rows: list[Row] = field(default_factory=list)
    found: dict[int, Floats] = field(default_factory=dict)


def buckets(lengths: Sequence[int], *, most: int = BUCKET_TOKENS) -> list[list[int]]:
    """Places of the rows in groups of similar length, the shortest first.

    A group holds at most `most` tokens with its padding, or a single row.
    """
    groups: list[list[int]] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups:
            padded = (len(groups[-1]) + 1) * lengths[place]
            if padded <= most and padded - tokens - lengths[place] <= PADDING_RATIO * padded:
                groups[-1].append(place)
                tokens += lengths[place]
                continue
        groups.append([place])
        tokens = lengths[place]
    return groups


class Batcher:
    """Computes jobs on a thread of its own; at most `max_rows` rows may wait."""

    def __init__(self, *, max_rows: int) -> None:
        self._max_rows = max_rows
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._live, name="relevance", daemon=True)
        self._thread.start()

    async def run(self, head: RunsRows, make_rows: Callable[[], list[Row]], size: int) -> Floats:
        """One result for each of the `size` rows that `make_rows` makes, in their order.

        Raises RelevanceError where too many rows wait, the computation fails, or it is closed.
        """
        loop = asyncio.get_running_loop()
        job = Job(head, make_rows, size, loop, loop.create_future())
        with self._wake:
            if self._closed:
                raise RelevanceError("the relevance model is closed")
            waiting = sum(one.size for one in self._waiting)
            if waiting and waiting + size > self._max_rows:
                raise RelevanceError(f"{waiting} rows wait for the relevance model already")
            self._waiting.append(job)
            self._wake.notify()
        return await job.future

    def close(self) -> None:
        """Refuse what waits and end the thread; blocks until its current bucket is done."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _live(self) -> None:
        """Compute until closed. Whatever goes wrong, the thread lives on, and nobody waits for nothing."""
        while True:
            with self._wake:
                while not (self._waiting or self._closed):
                    self._wake.wait()
                jobs, self._waiting = list(self._waiting), deque()
                closed = self._closed
            if closed:
                _fail(jobs, RelevanceError("the relevance model is closed"))
                return
            for head in dict.fromkeys(job.head for job in jobs):
                own = [job for job in jobs if job.head is head]
                try:
                    self._compute(head, own)
                except Exception as error:  # noqa: BLE001 - no room for the answers, say
                    _fail(own, error)

    def _compute(self, head: RunsRows, jobs: list[Job]) -> None:
        for job in jobs:
            try:
                job.rows = [] if job.future.done() else job.make_rows()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is this caller's alone
                _fail([job], error)
        everything = [(job, place) for job in jobs for place in range(len(job.rows))]
        for group in buckets([len(job.rows[place].ids) for job, place in everything]):
            wanted = [everything[n] for n in group if not everything[n][0].future.done()]
            if not wanted:
                continue
            try:
                found = head.run([job.rows[place] for job, place in wanted])
                pairs = list(zip(wanted, found, strict=True))
            except Exception as error:  # noqa: BLE001 - every row of this run is suspect, none of another
                _fail(dict.fromkeys(job for job, _ in wanted), error)
                continue
            for (job, place), result in pairs:
                job.found[place] = result
                if len(job.found) == len(job.rows):
                    _settle(job, np.stack([job.found[n] for n in range(len(job.rows))]))


def _fail(jobs: Iterable[Job], error: Exception) -> None:
    told = error if isinstance(error, RelevanceError) else RelevanceError(f"{type(error).__name__}: {error}")
    for job in jobs:
        _settle(job, told)


def _settle(job: Job, answer: Floats | RelevanceError) -> None:
    def deliver() -> None:
        if job.future.done():  # cancelled, or failed in another bucket
            return
        if isinstance(answer, RelevanceError):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)

    with contextlib.suppress(RuntimeError):  # a loop that has closed has nobody waiting
        job.loop.call_soon_threadsafe(deliver)
