"""From a cache key to a judged generation: engine, guard, confidence, cache. It never raises.

Whoever waits for it, or nobody: a failure is a value, counted and logged here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from app.contracts import prompt
from app.contracts.prompt import PROMPT_VERSION
from app.contracts.reasons import Reason
from app.engines.base import GenerationRequest
from app.errors import EngineError, EngineFailedError
from app.rewrite.answer import Judged
from app.rewrite.guard import Limits
from app.rewrite.judge import judge
from app.telemetry import LOGGER, Metrics
from app.tracing.trail import TRAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engines.base import Generation
    from app.rewrite.answer import Mode, Query
    from app.rewrite.cache import LruCache
    from app.rewrite.lineup import Lineup, Serving
    from app.rewrite.shared_cache import SharedCache


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
    mode: Mode = "online"
    beam_width: int = 4
    max_tokens: int = 32
    min_confidence: float | None = None
    generation_timeout_s: float = 10.0
    limits: Limits = field(default_factory=Limits)


class TypicalTime:
    """What a generation takes now: an exponential mean of `seconds`, 0 before the first."""

    WEIGHT = 0.1

    def __init__(self) -> None:
        self.seconds = 0.0

    def saw(self, seconds: float) -> None:
        """Take one generation into account."""
        self.seconds += (seconds - self.seconds) * (self.WEIGHT if self.seconds else 1.0)


class Generator:
    """Generates, judges and remembers, under whatever checkpoint serves in the lineup of the query's arm."""

    def __init__(
        self,
        *,
        cache: LruCache[Key, Judged],
        shared: SharedCache | None,
        metrics: Metrics,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self.typical = TypicalTime()
        self._cache = cache
        self._shared = shared
        self._metrics = metrics
        self._policy = policy
        self._clock = clock

    def key(self, query: Query, lineup: Lineup) -> Key:
        """All that the generation for `query` depends on."""
        return Key(
            weights_digest=lineup.current.checkpoint.weights_digest,
            prompt=prompt.render(query.text, query.context),
            locale=(query.locale or "").lower(),
            num_completions=max(query.num_rewrites, self._policy.beam_width),
        )

    async def generate(self, key: Key, query: Query, lineup: Lineup) -> Judged | Reason:
        """Generate, judge and remember. Runs as a flight: a failure is a value, for it may have no reader.

        What is returned may be by a checkpoint that was activated after `key` was made; it says which.
        """
        began = self._clock()
        outcome = await self._generated(key, query, lineup)
        trail = TRAIL.get()
        if trail is not None:
            trail.generated(query, outcome, began, self._clock())
        return outcome

    async def _generated(self, key: Key, query: Query, lineup: Lineup) -> Judged | Reason:
        try:
            async with lineup.hold() as serving:
                key = replace(key, weights_digest=serving.checkpoint.weights_digest)
                judged = await self._judged(key, query, serving)
        except Exception as error:  # noqa: BLE001 -- see `generate`
            return self.failed(error)
        self._cache.put(key, judged)
        if self._shared is not None:
            self._shared.put(key, judged)
        for drop, count in judged.drops.items():
            self._metrics.guard_drops.labels(drop).inc(count)
        return judged

    async def _judged(self, key: Key, query: Query, serving: Serving) -> Judged:
        request = GenerationRequest(
            prompt=key.prompt,
            # Without others to rank beside it, a beam of one is greedy decoding, only slower.
            mode="greedy" if key.num_completions == 1 else "beam",
            num_completions=key.num_completions,
            max_tokens=self._policy.max_tokens,
        )
        asked = self._clock()
        generation = await serving.engine.generate(request)
        began = self._clock()
        self.typical.saw(began - asked)
        self._count_tokens(generation)
        calibration = serving.checkpoint.calibration
        threshold = self._policy.min_confidence
        judged = judge(
            # What the model read, which is what the key says: an entry must not depend on more.
            prompt.clean(query.text, prompt.MAX_QUERY_CHARS),
            _as_read(query.context),
            generation,
            checkpoint_id=serving.checkpoint.id,
            calibration=calibration,
            min_confidence=calibration.threshold if threshold is None else threshold,
            limits=self._policy.limits,
        )
        if judged.weights_digest != key.weights_digest:
            # Weights changed behind our back: the calibration at hand does not speak for these.
            raise EngineFailedError("the engine answered with other weights than it announced")
        return replace(judged, guard_s=self._clock() - began)

    def _count_tokens(self, generation: Generation) -> None:
        self._metrics.engine_tokens.labels("prompt").inc(generation.prompt_tokens)
        self._metrics.engine_tokens.labels("completion").inc(
            sum(len(completion.token_ids) for completion in generation.completions)
        )

    def failed(self, error: Exception) -> Reason:
        """Count and log a failure; the reason that the client is told."""
        reason = error.reason if isinstance(error, EngineError) else Reason.ENGINE_ERROR
        self._metrics.engine_errors.labels(reason).inc()
        LOGGER.warning("generation failed", exc_info=error, extra={"fields": {"reason": reason}})
        return reason


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
