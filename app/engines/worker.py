"""The thread that computes: jobs from any event loop in, hypotheses out, the batch stepped in between.

Before every step it forgets cancelled jobs and lets waiting ones in, so a job never waits for another to
finish while there are rows free.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engines.batch import Batch, Entry, Outcome
from app.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineFailedError,
    EngineUnavailableError,
)

if TYPE_CHECKING:
    from app.engines.batch import Backend
    from app.engines.decoding import Decoder, Hypothesis

MAX_PROMPT_TOKENS_PER_STEP = 512
"""Prompts that join one step stop at this many tokens, so that a burst cannot stall what runs already."""


@dataclass(eq=False, slots=True)
class Job:
    """A prompt to complete, and the future that waits for it on `loop`."""

    prompt: list[int]
    decoder: Decoder
    max_rows: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Hypothesis]]


class Worker:
    """Runs jobs over `backend` in at most `max_rows` rows; `max_queue` more may wait.

    `running` and `waiting` count jobs and may be read from any thread.
    """

    def __init__(self, backend: Backend, *, max_rows: int, max_queue: int, drain_s: float) -> None:
        self.running = 0
        self._batch: Batch[Job] = Batch(backend, max_rows=max_rows)
        self._max_queue = max_queue
        self._drain_s = drain_s
        self._wake = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._taken: set[Job] = set()  # by the thread, and not answered yet
        self._closing = False
        self._died: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait for rows."""
        return len(self._waiting)

    async def run(self, prompt: list[int], decoder: Decoder, *, max_rows: int) -> list[Hypothesis]:
        """Complete a prompt. Cancelling frees its rows at the next step, its place in the queue at once.

        Raises `EngineUnavailableError` when closing or full, `EngineFailedError` when the computation fails,
        `EngineDeadError` when the thread is no more.
        """
        loop = asyncio.get_running_loop()
        job = Job(prompt, decoder, max_rows, loop, loop.create_future())
        with self._wake:
            if self._died is not None:
                raise EngineDeadError(f"the engine's thread died of {self._died!r}")
            if self._closing:
                raise EngineUnavailableError("the engine is closing")
            if len(self._waiting) >= self._max_queue:
                raise EngineBusyError(f"{self._max_queue} requests wait already")
            self._waiting.append(job)
            self._wake.notify()
        try:
            return await job.future
        finally:
            if job.future.cancelled():
                with self._wake:
                    if job in self._waiting:
                        self._waiting.remove(job)

    def close(self) -> None:
        """Refuse new and waiting jobs, let running ones finish within `drain_s`, end the thread; blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        with contextlib.suppress(AttributeError):  # closed before
            del self._batch  # the thread that closes may hold on to this object; its memory goes now

    def _live(self) -> None:
        """Work until closed; whatever else ends the work, nobody is left waiting for it."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 -- failures of a request end up with the request
            with self._wake:
                self._died = error
                orphans, self._waiting = [*self._taken, *self._waiting], deque()
            self.running = 0
            _deliver([(job, EngineDeadError(f"the engine's thread died of {error!r}")) for job in orphans])

    def _work(self) -> None:
        batch, deadline = self._batch, float("inf")
        while True:
            batch.drop(_abandoned)
            self._taken -= {job for job in self._taken if _abandoned(job)}
            with self._wake:
                self.running = len(batch)
                while not (self._waiting or len(batch) or self._closing):
                    self._wake.wait()
                if self._closing:
                    deadline = min(deadline, time.monotonic() + self._drain_s)
                    refused, self._waiting = self._waiting, deque()
                    _deliver([(job, EngineUnavailableError("the engine is closing")) for job in refused])
                    if not len(batch) or time.monotonic() > deadline:
                        break
            joined = self._admit()
            self.running = len(batch)
            outcomes = joined + batch.step()
            self._taken -= {job for job, _ in outcomes}
            _deliver(outcomes)
        _deliver([(job, EngineUnavailableError("the engine was closed")) for job in batch.clear()])
        self.running = 0

    def _admit(self) -> list[Outcome[Job]]:
        """Let waiting jobs in, oldest first, while the oldest fits: a wide one is never overtaken."""
        entries: list[Entry[Job]] = []
        rows = tokens = 0
        while tokens < MAX_PROMPT_TOKENS_PER_STEP:
            with self._wake:
                if not self._waiting or not self._batch.fits(rows + self._waiting[0].max_rows):
                    break
                job = self._waiting.popleft()
                self._taken.add(job)
            if not _abandoned(job):
                entries.append(Entry(job, job.prompt, job.decoder, job.max_rows))
                rows += job.max_rows
                tokens += len(job.prompt)
        return self._batch.join(entries)


def _abandoned(job: Job) -> bool:
    return job.future.cancelled()


def _deliver(outcomes: list[Outcome[Job]]) -> None:
    for job, outcome in outcomes:
        answer = outcome
        if isinstance(outcome, Exception) and not isinstance(outcome, EngineError):
            answer = EngineFailedError(f"{type(outcome).__name__}: {outcome}")
            answer.__cause__ = outcome
        with contextlib.suppress(RuntimeError):  # a loop that has closed has nobody waiting
            job.loop.call_soon_threadsafe(_settle, job.future, answer)


def _settle(future: asyncio.Future[list[Hypothesis]], answer: list[Hypothesis] | Exception) -> None:
    if future.done():  # cancelled while the answer was on its way
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
