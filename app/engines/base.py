"""The Engine protocol: prompts in, n-best completions with log-probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to complete.

    `mode` "greedy" gives one completion; "beam" the `num_completions` best of a beam of that width, best
    first; "sample" draws `num_completions` independent completions, a function of `seed` alone: equal
    requests give equal answers whatever else is in the batch.
    """

    prompt: str
    mode: Literal["greedy", "beam", "sample"] = "beam"
    num_completions: int = 1
    max_tokens: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion.

    `logprob` is the natural-log probability of all of `token_ids` under the model (temperature 1, no
    truncation of the distribution), the end token included where `finish_reason` is "stop".
    `text` is decoded without the end token.
    """

    text: str
    token_ids: tuple[int, ...]
    logprob: float
    finish_reason: Finish


@dataclass(frozen=True, slots=True)
class Generation:
    """Completions of one request, best first, and the digest of the weights that wrote all of them."""

    completions: tuple[Completion, ...]
    weights_digest: str
    prompt_tokens: int


class Engine(Protocol):
    """What the request path needs of an engine. Cancelling `generate` frees its place in the batch."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""

    async def start(self) -> None:
        """Load and warm up; raises `EngineUnavailableError` where that fails."""

    async def close(self) -> None:
        """Stop accepting, finish or cancel what runs, free memory. Safe to call twice."""

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt.

        Raises:
            InputTooLongError: prompt and `max_tokens` do not fit the model's window.
            EngineUnavailableError: not started, closing, or the queue is full.
            EngineFailedError: the computation failed for this request.
        """


@runtime_checkable
class Reloadable(Protocol):
    """An engine that can change its weights in place."""

    async def reload(self, checkpoint_dir: Path, *, weights_digest: str) -> None:
        """Replace the weights; the caller sees to it that no request is under way.

        What it did has to be proven (`app.engines.proof`). When it raises, the engine holds either the old
        weights, or the new ones, or some of both, or none.

        Raises:
            EngineError: it could not.
        """
