"""The request path: admission, assignment, caches, single-flight, engine, guard, confidence, answer.

It promises one thing above all: whatever the engine does, a valid query that is admitted gets an answer
within its deadline, with its text untouched, and where there is no rewrite a reason of a closed set.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from app.contracts import prompt
from app.contracts.reasons import Reason
from app.rewrite.answer import Answer, CacheUse, Judged, Query, Timings
from app.rewrite.single_flight import FlightCancelledError, SingleFlight
from app.tracing.trail import TRAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.rewrite.admission import Admission
    from app.rewrite.cache import LruCache
    from app.rewrite.deadline import Deadline
    from app.rewrite.generator import Generator, Key, Policy
    from app.rewrite.lineup import Lineup, Lineups
    from app.rewrite.nearline import NearlineQueue
    from app.rewrite.shared_cache import SharedCache
    from app.rollout.traffic import Place, Traffic
    from app.telemetry import Metrics


class RewriteService:
    """Answers queries. One per process; lives on one event loop."""

    def __init__(
        self,
        *,
        generator: Generator,
        lineups: Lineups,
        traffic: Traffic,
        shared: SharedCache | None,
        admission: Admission,
        cache: LruCache[Key, Judged],
        flights: SingleFlight[Key, Judged | Reason],
        nearline: NearlineQueue[Key],
        metrics: Metrics,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generator = generator
        self._lineups = lineups
        self._traffic = traffic
        self._shared = shared
        self._admission = admission
        self._cache = cache
        self._flights = flights
        self._nearline = nearline
        self._metrics = metrics
        self._policy = policy
        self._clock = clock

    async def rewrite(
        self, query: Query, deadline: Deadline, *, patient: bool = False, fresh: bool = False
    ) -> Answer:
        """Answer within the deadline; never for want of a rewrite an error.

        Args:
            query: a valid query.
            deadline: in the service's clock.
            patient: it is an item of an admitted batch; see `Admission.enter`.
            fresh: generate even what a cache has.

        Raises:
            OverloadedError, DrainingError: shed before any work.
        """
        started = self._clock()
        timings = Timings()
        place = self._traffic.place(query)
        mode = query.mode or self._policy.mode
        waits = mode == "online" or (mode == "auto" and self._admission.has_room)
        if waits:
            admitted = await self._admission.enter(budget_s=deadline.remaining_s(started), patient=patient)
            timings.queue_s = self._clock() - started
            if not admitted:
                return self._finish(query, place, Reason.DEADLINE, "none", timings, started)
        elif not patient:
            self._admission.check_open()
        try:
            outcome, cache = await self._resolve(
                query, place, deadline if waits else None, timings, fresh=fresh
            )
        except Exception as error:  # noqa: BLE001 -- the promise of this module: no failure reaches the client
            outcome, cache = self._generator.failed(error), "none"
        finally:
            if waits:
                self._admission.leave()
        return self._finish(query, place, outcome, cache, timings, started)

    def expired(self, query: Query) -> Answer:
        """The answer to a query whose deadline passed before it could enter."""
        place = self._traffic.place(query)
        return self._finish(query, place, Reason.DEADLINE, "none", Timings(), self._clock())

    async def _resolve(
        self, query: Query, place: Place, deadline: Deadline | None, timings: Timings, *, fresh: bool
    ) -> tuple[Judged | Reason, CacheUse]:
        """What a cache has, or what the engine says by the deadline; without one, near-line."""
        if not self._policy.enabled or not place.stages:
            return Reason.DISABLED, "none"
        if _is_cut_by_prompt(query.text):
            return Reason.INPUT_TOO_LONG, "none"
        lineup = self._lineups.of(place.variant)
        if lineup is None:
            return Reason.ENGINE_UNAVAILABLE, "none"
        key, entry = self._look_up(query, lineup, timings)
        if fresh:
            entry = None
        elif entry is None and self._shared is not None and not self._flights.in_flight(key):
            entry = await self._recall(self._shared, key, deadline, timings)
        if entry is not None:
            return entry, "hit"
        looked_up = self._clock()
        remaining_s = deadline.remaining_s(looked_up) if deadline else 0.0
        hopeless = self._generator.typical.seconds > remaining_s
        if deadline is None or (hopeless and (query.mode or self._policy.mode) == "auto"):
            return self._queue(key, query, lineup), "miss"
        shared = self._flights.in_flight(key)
        if shared:
            self._metrics.shared.inc()
        try:
            outcome = await self._flights.run(
                key, lambda: self._generator.generate(key, query, lineup), timeout_s=remaining_s
            )
        except FlightCancelledError:
            outcome = Reason.ENGINE_UNAVAILABLE
        waited_s = self._clock() - looked_up
        timings.guard_s = min(outcome.guard_s, waited_s) if isinstance(outcome, Judged) else 0.0
        timings.engine_s = waited_s - timings.guard_s
        return (Reason.DEADLINE if outcome is None else outcome), ("shared" if shared else "miss")

    def _look_up(self, query: Query, lineup: Lineup, timings: Timings) -> tuple[Key, Judged | None]:
        """The key of a query and what the cache has for it."""
        began = self._clock()
        key = self._generator.key(query, lineup)
        entry = self._cache.get(key)
        timings.cache_s = self._clock() - began
        (self._metrics.cache_miss if entry is None else self._metrics.cache_hit).inc()
        return key, entry

    async def _recall(
        self, shared: SharedCache, key: Key, deadline: Deadline | None, timings: Timings
    ) -> Judged | None:
        """What replicas have for the key. It has a bound of its own, which is all that near-line waits."""
        began = self._clock()
        entry = None
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining_s(began) if deadline else None):
                entry = await shared.get(key)
        if entry is not None:
            self._cache.put(key, entry)
        timings.cache_s += self._clock() - began
        return entry

    def _queue(self, key: Key, query: Query, lineup: Lineup) -> Reason:
        """Leave a generation to the near-line queue, unless it is in flight already."""

        async def work() -> None:
            timeout_s = self._policy.generation_timeout_s
            await self._flights.run(
                key, lambda: self._generator.generate(key, query, lineup), timeout_s=timeout_s
            )

        queued = not self._flights.in_flight(key) and self._nearline.offer(key, work)
        self._metrics.nearline.labels("queued" if queued else "known").inc()
        return Reason.NEARLINE

    def _finish(  # noqa: PLR0917 -- what a request has come to
        self,
        query: Query,
        place: Place,
        outcome: Judged | Reason,
        cache: CacheUse,
        timings: Timings,
        started: float,
    ) -> Answer:
        timings.total_s = self._clock() - started
        if not isinstance(outcome, Judged):
            serving = (self._lineups.of(place.variant) or self._lineups.stable).current.checkpoint
            outcome = Judged((), outcome, {}, serving.weights_digest, serving.id)
        impacted = outcome.reason is None
        if place.arm == "holdout" and impacted:
            # It has waited as long as the others: what is compared is the rewrite, and not the wait for it.
            outcome = replace(outcome, rewrites=(), reason=Reason.HOLDOUT)
        reason = outcome.reason
        observe = self._metrics.phase_seconds
        observe["queue"].observe(timings.queue_s)
        observe["total"].observe(timings.total_s)
        if cache != "none":
            observe["cache"].observe(timings.cache_s)
        if cache in {"miss", "shared"}:
            observe["engine"].observe(timings.engine_s)
            observe["guard"].observe(timings.guard_s)
        self._metrics.arms.labels(place.arm).inc()
        self._metrics.count_request("degraded" if reason else "rewritten", reason or "none")
        answer = Answer(
            query=query,
            rewrites=outcome.rewrites[: query.num_rewrites],
            reason=reason,
            cache=cache,
            arm=place.arm,
            checkpoint_id=outcome.checkpoint_id,
            weights_digest=outcome.weights_digest,
            drops=outcome.drops,
            timings=timings,
            launched=place.stages,
            cell=place.cell and replace(place.cell, impacted=impacted),
        )
        trail = TRAIL.get()
        if trail is not None:
            trail.answered(answer, started)
        return answer


def _is_cut_by_prompt(text: str) -> bool:
    """Whether the model would read more than it may: "ﷺ" unfolds to 18 characters, "<|" is broken up."""
    if text.isascii() and "<|" not in text:
        return False
    return len(prompt.clean(text, sys.maxsize)) > prompt.MAX_QUERY_CHARS
