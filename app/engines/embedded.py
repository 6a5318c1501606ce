"""The embedded engine: a small decoder on the CPU, in this process, with continuous batching.

The event loop only tokenises and waits; one worker thread computes (`worker`), over ONNX Runtime
(`onnx_backend`). Why ONNX Runtime: docs/adr/0001-embedded-engine.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engines.base import Generation, GenerationRequest
from app.engines.decoding import candidates, make_decoder, rows_needed
from app.engines.text import completions_of, encode_prompt, read_tokenizer
from app.engines.worker import Worker
from app.errors import EngineFailedError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.engines.batch import Backend

WARM_UP_STEPS = 4


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine holds now, in requests, and what it has answered so far, in tokens."""

    running: int
    waiting: int
    prompt_tokens_total: int
    completion_tokens_total: int


class EmbeddedEngine:
    """An `Engine` over the checkpoint in `checkpoint_dir` (config, safetensors, tokenizer).

    "beam" searches with `beam_width` rows, or `num_completions` where that is more, and ranks hypotheses by
    total log-probability, without a length penalty. Equal requests get equal answers, bit for bit, whatever
    else is in the batch.

    Args:
        checkpoint_dir: a Hugging Face style folder of a Qwen3-type model.
        weights_digest: SHA-256 (hex) of the weights; every answer carries it.
        threads: threads of one step. Requests are batched, so more threads shorten a step, not the queue.
        max_batch: rows of a step; a beam takes its width, sampling one row a completion.
        max_queue: requests that may wait for rows; the next one is refused.
        max_model_tokens: prompt plus completion, and the capacity of the cache per row.
        beam_width: rows of a beam; a request for more completions than that widens it. Wider than the
            completions asked for, because a narrow beam loses the best ones early.
        drain_s: seconds that `close` leaves running requests to finish.
        make_backend: builds the arithmetic; the default is ONNX Runtime over `checkpoint_dir`.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        *,
        weights_digest: str,
        threads: int = 1,
        max_batch: int = 64,
        max_queue: int = 256,
        max_model_tokens: int = 256,
        beam_width: int = 4,
        drain_s: float = 5.0,
        make_backend: Callable[[], Backend] | None = None,
    ) -> None:
        self._dir = checkpoint_dir
        self._weights_digest = weights_digest
        self._threads = threads
        self._max_batch, self._max_queue = max_batch, max_queue
        self._max_model_tokens = max_model_tokens
        self._beam_width = beam_width
        self._drain_s = drain_s
        self._make_backend = make_backend or self._onnx_backend
        self._starting = asyncio.Lock()
        self._closed = False
        self._worker: Worker | None = None
        self._prompt_tokens = self._completion_tokens = 0

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""
        return self._weights_digest

    def stats(self) -> EngineStats:
        """A reading for metrics; callable from any thread."""
        worker = self._worker
        running, waiting = (worker.running, worker.waiting) if worker else (0, 0)
        return EngineStats(running, waiting, self._prompt_tokens, self._completion_tokens)

    async def start(self) -> None:
        """Load, warm up and begin to answer; does nothing when started already.

        Raises `EngineUnavailableError` where the checkpoint cannot be used, and after `close`.
        """
        async with self._starting:
            if self._closed:
                raise EngineUnavailableError("the engine is closed")
            if self._worker is None:
                await self._begin()

    async def reload(self, checkpoint_dir: Path, *, weights_digest: str) -> None:
        """See `Reloadable.reload`: the old weights are freed before the new ones are read."""
        async with self._starting:
            if self._closed:
                raise EngineUnavailableError("the engine is closed")
            await self._stop()
            self._dir, self._weights_digest = checkpoint_dir, weights_digest
            await self._begin()

    async def close(self) -> None:
        """Refuse new and waiting requests, let running ones finish within `drain_s`, free the memory."""
        self._closed = True
        async with self._starting:
            await self._stop()

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt; see `Engine.generate`. Cancelling frees its rows at the next step."""
        if self._worker is None or self._closed:
            raise EngineUnavailableError("the engine is not running")
        prompt = encode_prompt(self._tokenizer, request, max_model_tokens=self._max_model_tokens)
        max_rows = rows_needed(request, beam_width=self._beam_width)
        if max_rows > self._max_batch:
            raise EngineFailedError(f"the request takes {max_rows} rows of a batch of {self._max_batch}")
        if not prompt:
            raise EngineFailedError("the prompt has no tokens")
        try:
            decoder = make_decoder(request, end_id=self._end_id, beam_width=self._beam_width)
        except ValueError as error:
            raise EngineFailedError(str(error)) from error
        hypotheses = await self._worker.run(prompt, decoder, max_rows=max_rows)
        self._prompt_tokens += len(prompt)
        self._completion_tokens += sum(len(hypothesis.token_ids) for hypothesis in hypotheses)
        completions = completions_of(self._tokenizer, hypotheses)
        return Generation(completions, self._weights_digest, prompt_tokens=len(prompt))

    async def _begin(self) -> None:
        try:
            backend = await asyncio.to_thread(self._load)
        except Exception as error:
            # Not only what is wrong with files: no memory too, for which ONNX Runtime has errors of its own.
            raise EngineUnavailableError(f"{self._dir}: {str(error) or repr(error)}") from error
        self._worker = Worker(
            backend, max_rows=self._max_batch, max_queue=self._max_queue, drain_s=self._drain_s
        )

    async def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.close)

    def _load(self) -> Backend:
        self._tokenizer, self._end_id = read_tokenizer(self._dir)
        end_id = self._end_id
        backend = self._make_backend()
        backend.prefill(0, [[end_id]])
        for length in range(1, 1 + WARM_UP_STEPS):
            backend.decode([end_id], [length])
        return backend

    def _onnx_backend(self) -> Backend:
        # Here, because the import costs a third of a second that other engines need not pay.
        from app.engines.onnx_backend import OnnxBackend  # noqa: PLC0415

        return OnnxBackend(
            self._dir,
            threads=self._threads,
            slots=self._max_batch,
            max_tokens=self._max_model_tokens,
            best=candidates(self._beam_width),
        )
