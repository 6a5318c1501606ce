"""Hand-written fakes, used through the real create_app."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.contracts.prompt import QUERY, REWRITE, Context
from app.engines.base import Completion, Generation, GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.contracts.manifest import GoldenPrompt

DIGEST = "5e" * 32


def completion(text: str, logprob: float = -0.5, finish: str = "stop") -> Completion:
    return Completion(text=text, token_ids=(1, 2, 3), logprob=logprob, finish_reason=finish)  # type: ignore[arg-type]


def query_of(prompt: str) -> str:
    return prompt.split(QUERY, 1)[1].removesuffix(REWRITE)


def suffixes(query: str) -> list[Completion]:
    """Four acceptable rewrites of any query with a Latin letter or none."""
    return [
        completion(f"{query} {word}", -0.5 * rank)
        for rank, word in enumerate(("jobs", "work", "shoes", "red"), 1)
    ]


@dataclass
class FakeEngine:
    """Answers `completions(query)`, after `delay_s`, or raises `error`; keeps what it was asked."""

    completions: Callable[[str], Sequence[Completion]] = suffixes
    delay_s: float = 0.0
    error: BaseException | None = None
    start_error: Exception | None = None
    weights_digest: str = DIGEST
    answers_with: str = DIGEST
    asked: list[GenerationRequest] = field(default_factory=list)
    running: int = 0
    peak: int = 0
    cancelled: int = 0
    started: int = 0
    closed: int = 0
    gate: asyncio.Event | None = None

    async def start(self) -> None:
        self.started += 1
        if self.start_error is not None:
            raise self.start_error

    async def close(self) -> None:
        self.closed += 1

    async def generate(self, request: GenerationRequest) -> Generation:
        self.asked.append(request)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return Generation(
            tuple(self.completions(query_of(request.prompt))), self.answers_with, prompt_tokens=5
        )


@dataclass
class FakeCalibration:
    """Confidence falls with the place in the n-best list: 0.9, 0.8, ..."""

    threshold: float = 0.5
    values: Callable[[int], float] = lambda place: 0.9 - 0.1 * place

    def confidences(self, query: str, context: Context, completions: Sequence[Completion]) -> list[float]:
        assert isinstance(query, str)
        assert isinstance(context, Context)
        return [self.values(place) for place in range(len(completions))]


@dataclass
class FakeCheckpoint:
    id: str = "fake-1"
    weights_digest: str = DIGEST
    calibration: FakeCalibration = field(default_factory=FakeCalibration)
    golden: tuple[GoldenPrompt, ...] = ()
    path: Path = Path("fake")
    model_digest: str = DIGEST

    def verify(self) -> None:
        pass
