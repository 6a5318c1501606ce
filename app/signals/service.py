"""The signals of a query for the stages of a search, under one deadline.

What the first call of a query_id was answered is remembered for a while, degraded or not, so that stages that
come in separate calls see the same rewrites, arm and checkpoint, whatever is activated between them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.contracts.reasons import Reason
from app.errors import BadRequestError
from app.signals.records import Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.contracts.prompt import Context
    from app.rewrite.admission import Admission
    from app.rewrite.answer import Answer, Query
    from app.rewrite.cache import LruCache
    from app.rewrite.deadline import Deadline
    from app.rewrite.service import RewriteService
    from app.rollout.assignment import Arm
    from app.rollout.traffic import Traffic
    from app.signals.records import Candidate
    from app.signals.runner import StageRunner


@dataclass(frozen=True, slots=True)
class Search:
    """What calls of one search have in common; the key under which its answer is remembered."""

    query_id: str
    text: str
    context: Context
    locale: str | None
    client_id: str | None
    arm: Arm | None


class SignalService:
    """Answers with signals. One per process; lives on one event loop."""

    def __init__(
        self,
        *,
        rewrites: RewriteService,
        runner: StageRunner,
        admission: Admission,
        memory: LruCache[Search, Answer],
        traffic: Traffic,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rewrites = rewrites
        self._runner = runner
        self._admission = admission
        self._memory = memory
        self._traffic = traffic
        self._clock = clock

    async def signals(self, query: Query, candidates: Sequence[Candidate], deadline: Deadline) -> Signals:
        """The signals of the stages that `query` names, by the deadline.

        Args:
            query: a valid query.
            candidates: what the original found, in any order; the answer keeps it.
            deadline: in the service's clock.

        Raises:
            BadRequestError: an image embedding is not of the size that the relevance model reads.
            OverloadedError, DrainingError: shed before any work.
        """
        self._check_images(candidates)
        started = self._clock()
        entered = await self._admission.enter(budget_s=deadline.remaining_s(started))
        try:
            answer, remembered = await self._answer(query, deadline if entered else None)
            rewrite_s = self._clock() - started
            staged = await self._runner.run(answer, candidates, deadline)
        finally:
            if entered:
                self._admission.leave()
        return Signals(
            answer=answer,
            remembered=remembered,
            recall=staged.recall,
            rawrank=staged.rawrank,
            finerank=staged.finerank,
            relevance_digest=self._runner.relevance_digest,
            seconds={"rewrite": rewrite_s, **staged.seconds, "total": self._clock() - started},
        )

    async def _answer(self, query: Query, deadline: Deadline | None) -> tuple[Answer, bool]:
        """The answer of this search, and whether it was there; without a deadline, it has passed."""
        key = Search(query.query_id, query.text, query.context, query.locale, query.client_id, query.arm)
        found = self._memory.get(key)
        if found is None:
            if deadline is None:
                made = self._rewrites.expired(query)
            else:
                made = await self._rewrites.rewrite(query, deadline, patient=True)
            found = self._memory.get(key)  # another call of this search may have been faster
            if found is None:
                self._memory.put(key, made)
                return made, False
        if self._traffic.killed:  # since the first call of this search
            return replace(found, query=query, rewrites=(), reason=Reason.DISABLED), True
        return replace(found, query=query, rewrites=found.rewrites[: query.num_rewrites]), True

    def _check_images(self, candidates: Sequence[Candidate]) -> None:
        expected = self._runner.image_dim
        for place, candidate in enumerate(candidates):
            image = candidate.content.image
            if expected and image is not None and len(image) != expected:
                raise BadRequestError(
                    f"candidates.{place}.image: must have {expected} numbers, which the relevance model "
                    f"reads, not {len(image)}"
                )
