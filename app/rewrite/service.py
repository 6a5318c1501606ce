"""The request path: admission, assignment, cache, single-flight, engine, guard, confidence, answer.

It promises one thing above all: whatever the engine does, a valid query that is admitted gets an answer
within its deadline, with its text untouched, and where there is no rewrite a reason of a closed set.
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from app.contracts import prompt
from app.contracts.prompt import PROMPT_VERSION
from app.contracts.reasons import Reason
from app.engines.base import GenerationRequest
from app.errors import EngineError, EngineFailedError, EngineUnavailableError
from app.rewrite.answer import Answer, CacheUse, Judged, Query, Timings
from app.rewrite.guard import Limits
from app.rewrite.judge import Calibrated, judge
from app.rewrite.single_flight import FlightCancelledError, SingleFlight
from app.telemetry import LOGGER, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engines.base import Engine, Generation
    from app.rewrite.admission import Admission
    from app.rewrite.cache import LruCache
    from app.rewrite.deadline import Deadline


class ServedCheckpoint(Protocol):
    """What the request path needs of a checkpoint."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over its weights."""

    @property
    def calibration(self) -> Calibrated:
        """How to read confidence from its log-probabilities."""


@dataclass(frozen=True, slots=True)
class Key:
    """All that a judged generation is a function of. The digest is in it: a swap never serves old text."""

    weights_digest: str
    prompt: str
    locale: str
    num_completions: int
    prompt_version: int = PROMPT_VERSION


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the request path; see app/settings.py for each."""

    enabled: bool = True
    beam_width: int = 4
    max_tokens: int = 32
    min_confidence: float | None = None
    generation_timeout_s: float = 10.0
    limits: Limits = field(default_factory=Limits)


class RewriteService:
    """Answers queries. One per process; lives on one event loop."""

    def __init__(
        self,
        *,
        engine: Engine,
        checkpoint: ServedCheckpoint,
        admission: Admission,
        cache: LruCache[Key, Judged],
        flights: SingleFlight[Key, Judged | Reason],
        metrics: Metrics,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._checkpoint = checkpoint
        self._admission = admission
        self._cache = cache
        self._flights = flights
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        threshold = checkpoint.calibration.threshold
        self._min_confidence = threshold if policy.min_confidence is None else policy.min_confidence

    async def rewrite(self, query: Query, deadline: Deadline, *, patient: bool = False) -> Answer:
        """Answer within the deadline; never for want of a rewrite an error.

        Args:
            query: a valid query.
            deadline: in the service's clock.
            patient: it is an item of an admitted batch; see `Admission.enter`.

        Raises:
            OverloadedError, DrainingError: shed before any work.
        """
        started = self._clock()
        timings = Timings()
        admitted = await self._admission.enter(budget_s=deadline.remaining_s(started), patient=patient)
        timings.queue_s = self._clock() - started
        if not admitted:
            return self._finish(query, Reason.DEADLINE, "none", timings, started)
        try:
            outcome, cache = await self._resolve(query, deadline, timings)
        except Exception as error:  # noqa: BLE001 -- the promise of this module: no failure reaches the client
            outcome, cache = self._failed(error), "none"
        finally:
            self._admission.leave()
        return self._finish(query, outcome, cache, timings, started)

    def expired(self, query: Query) -> Answer:
        """The answer to a query whose deadline passed before it could enter."""
        return self._finish(query, Reason.DEADLINE, "none", Timings(), self._clock())

    async def _resolve(
        self, query: Query, deadline: Deadline, timings: Timings
    ) -> tuple[Judged | Reason, CacheUse]:
        if not self._policy.enabled:
            return Reason.DISABLED, "none"
        if _is_cut_by_prompt(query.text):
            return Reason.INPUT_TOO_LONG, "none"
        began = self._clock()
        key = Key(
            weights_digest=self._engine.weights_digest,
            prompt=prompt.render(query.text, query.context),
            locale=(query.locale or "").lower(),
            num_completions=max(query.num_rewrites, self._policy.beam_width),
        )
        entry = self._cache.get(key)
        looked_up = self._clock()
        timings.cache_s = looked_up - began
        if entry is not None:
            self._metrics.cache_hit.inc()
            return entry, "hit"
        self._metrics.cache_miss.inc()
        shared = self._flights.in_flight(key)
        if shared:
            self._metrics.shared.inc()
        try:
            outcome = await self._flights.run(
                key, lambda: self._generate(key, query), timeout_s=deadline.remaining_s(looked_up)
            )
        except FlightCancelledError:
            outcome = Reason.ENGINE_UNAVAILABLE
        waited_s = self._clock() - looked_up
        timings.guard_s = min(outcome.guard_s, waited_s) if isinstance(outcome, Judged) else 0.0
        timings.engine_s = waited_s - timings.guard_s
        return (Reason.DEADLINE if outcome is None else outcome), ("shared" if shared else "miss")

    async def _generate(self, key: Key, query: Query) -> Judged | Reason:
        """Generate, judge and remember. Runs as a flight: a failure is a value, for it may have no reader."""
        request = GenerationRequest(
            prompt=key.prompt, num_completions=key.num_completions, max_tokens=self._policy.max_tokens
        )
        try:
            generation = await self._ask_engine(request, key.weights_digest)
            began = self._clock()
            judged = judge(
                # What the model read, which is what the key says: an entry must not depend on more.
                prompt.clean(query.text, prompt.MAX_QUERY_CHARS),
                _as_read(query.context),
                generation,
                calibration=self._checkpoint.calibration,
                min_confidence=self._min_confidence,
                limits=self._policy.limits,
            )
        except Exception as error:  # noqa: BLE001 -- see the docstring
            return self._failed(error)
        judged = replace(judged, guard_s=self._clock() - began)
        self._cache.put(key, judged)
        self._metrics.engine_tokens.labels("prompt").inc(generation.prompt_tokens)
        self._metrics.engine_tokens.labels("completion").inc(
            sum(len(completion.token_ids) for completion in generation.completions)
        )
        for drop, count in judged.drops.items():
            self._metrics.guard_drops.labels(drop).inc(count)
        return judged

    async def _ask_engine(self, request: GenerationRequest, weights_digest: str) -> Generation:
        try:
            async with asyncio.timeout(self._policy.generation_timeout_s):
                generation = await self._engine.generate(request)
        except TimeoutError as error:
            raise EngineUnavailableError("the engine did not answer at all") from error
        if generation.weights_digest != weights_digest:
            # Weights changed under way: the calibration at hand does not speak for these.
            raise EngineFailedError("the engine answered with other weights than it announced")
        return generation

    def _failed(self, error: Exception) -> Reason:
        reason = error.reason if isinstance(error, EngineError) else Reason.ENGINE_ERROR
        self._metrics.engine_errors.labels(reason).inc()
        LOGGER.warning("generation failed", exc_info=error, extra={"fields": {"reason": reason}})
        return reason

    def _finish(
        self, query: Query, outcome: Judged | Reason, cache: CacheUse, timings: Timings, started: float
    ) -> Answer:
        timings.total_s = self._clock() - started
        if isinstance(outcome, Judged):
            rewrites, reason, drops = outcome.rewrites[: query.num_rewrites], outcome.reason, outcome.drops
        else:
            rewrites, reason, drops = (), outcome, {}
        observe = self._metrics.phase_seconds
        observe["queue"].observe(timings.queue_s)
        observe["total"].observe(timings.total_s)
        if cache != "none":
            observe["cache"].observe(timings.cache_s)
        if cache in {"miss", "shared"}:
            observe["engine"].observe(timings.engine_s)
            observe["guard"].observe(timings.guard_s)
        self._metrics.count_request("degraded" if reason else "rewritten", reason or "none")
        return Answer(
            query=query,
            rewrites=rewrites,
            reason=reason,
            cache=cache,
            arm="stable",
            checkpoint_id=self._checkpoint.id,
            weights_digest=self._checkpoint.weights_digest,
            drops=drops,
            timings=timings,
        )


def _is_cut_by_prompt(text: str) -> bool:
    """Whether compatibility forms unfold to more characters than the model reads ("ﷺ" becomes 18)."""
    return not text.isascii() and len(unicodedata.normalize("NFKC", text)) > prompt.MAX_QUERY_CHARS


def _as_read(context: prompt.Context) -> prompt.Context:
    """The context as `prompt.render` lets the model see it."""
    item = context.last_item
    cut = prompt.MAX_CONTEXT_CHARS
    return prompt.Context(
        last_item=item and prompt.Item(prompt.clean(item.title, cut), prompt.clean(item.text, cut)),
        previous_queries=tuple(
            prompt.clean(previous, cut)
            for previous in context.previous_queries[-prompt.MAX_PREVIOUS_QUERIES :]
        ),
    )
