"""Hand-written fakes, used through the real create_app."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.contracts.prompt import QUERY, REWRITE, Context
from app.engines.base import Completion, Generation, GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.contracts.manifest import GoldenPrompt
    from app.relevance.base import Content, Floats

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
    start_error: BaseException | None = None
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


@dataclass
class FakeRelevance:
    """Relevance by shared words, or `values(query, text)`; hangs at `gates`, raises `errors`, by head.

    Embeddings are counts of letters. It keeps what it was asked, and counts what was cancelled.
    """

    values: Callable[[str, str], float] = field(default_factory=lambda: _overlap)
    digest: str = "7a" * 32
    image_dim: int = 0
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, BaseException] = field(default_factory=dict)
    embedding: Callable[[str], Sequence[float]] = lambda text: [
        1.0 + text.count(letter) for letter in "abcdefgh"
    ]
    asked: list[tuple[str, Any]] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        await self._work("embed_queries", tuple(texts))
        return self._embedded(texts)

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        await self._work("embed_documents", tuple(documents))
        return self._embedded([document.text for document in documents])

    def similarity(self, query: Floats, documents: Floats) -> list[float]:
        if "similarity" in self.errors:
            raise self.errors["similarity"]
        return [(1.0 + float(value)) / 2.0 for value in documents @ query]

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        await self._work("score", (query, *documents))
        return [self.values(query, document.text) for document in documents]

    async def _work(self, head: str, what: tuple[Any, ...]) -> None:
        self.asked.append((head, what))
        self.running += 1
        try:
            if head in self.gates:
                await self.gates[head].wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if head in self.errors:
            raise self.errors[head]

    def _embedded(self, texts: Sequence[str]) -> Floats:
        rows = np.array([self.embedding(text) for text in texts], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _overlap(query: str, text: str) -> float:
    """Words in common, from 1 / (1 + words of the query) to 1."""
    words = set(query.split())
    return (1 + len(words & set(text.split()))) / (1 + len(words))
