"""From a cache key to a judged generation: engine, guard, confidence, cache. It never raises.

Whoever waits for it, or nobody: a failure is a value, counted and logged here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from app.contracts import prompt
from app.contracts.prompt import PROMPT_VERSION
from app.contracts.reasons import Reason
from app.engines.base import GenerationRequest
from app.errors import EngineError, EngineFailedError
from app.rewrite.answer import Judged
from app.rewrite.guard import Limits
from app.rewrite.judge import Calibrated, judge
from app.telemetry import LOGGER, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engines.base import Engine, Generation
    from app.rewrite.answer import Mode, Query
    from app.rewrite.cache import LruCache


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
    """Generates, judges and remembers, under one checkpoint."""

    def __init__(
        self,
        *,
        engine: Engine,
        checkpoint: ServedCheckpoint,
        cache: LruCache[Key, Judged],
        metrics: Metrics,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self.typical = TypicalTime()
        self._engine = engine
        self._checkpoint = checkpoint
        self._cache = cache
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        threshold = checkpoint.calibration.threshold
        self._min_confidence = threshold if policy.min_confidence is None else policy.min_confidence

    def key(self, query: Query) -> Key:
        """All that the generation for `query` depends on."""
        return Key(
            weights_digest=self._engine.weights_digest,
            prompt=prompt.render(query.text, query.context),
            locale=(query.locale or "").lower(),
            num_completions=max(query.num_rewrites, self._policy.beam_width),
        )

    async def generate(self, key: Key, query: Query) -> Judged | Reason:
        """Generate, judge and remember. Runs as a flight: a failure is a value, for it may have no reader."""
        request = GenerationRequest(
            prompt=key.prompt, num_completions=key.num_completions, max_tokens=self._policy.max_tokens
        )
        try:
            asked = self._clock()
            generation = await self._ask_engine(request, key.weights_digest)
            began = self._clock()
            self.typical.saw(began - asked)
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
            return self.failed(error)
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
        generation = await self._engine.generate(request)
        if generation.weights_digest != weights_digest:
            # Weights changed under way: the calibration at hand does not speak for these.
            raise EngineFailedError("the engine answered with other weights than it announced")
        return generation

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
