"""An engine over transformers, for policies that no engine of the service reads; without beams."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

from app.engines.base import Generation, GenerationRequest
from app.engines.decoding import Hypothesis
from app.engines.text import completions_of, encode_prompt, read_tokenizer
from app.errors import CheckpointError, EngineFailedError, EngineUnavailableError
from training.seeded_draw import SeededDraw, rows_of

MAX_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    prompt: list[int]
    request: GenerationRequest
    answer: asyncio.Future[list[Hypothesis]]


class TransformersEngine:
    """An `Engine` over any decoder that transformers loads, on the GPU where there is one, in float32.

    Requests that wait are computed together. A draw is a function of prompt and seed, as far as torch's
    kernels do not depend on the batch: a number that falls on the edge of two tokens may fall to the other.

    Args:
        checkpoint_dir: a Hugging Face style folder with `tokenizer.json`.
        weights_digest: SHA-256 (hex) of the weights; every answer carries it.
        threads: of torch on a CPU, for the whole process.
        max_model_tokens: prompt plus completion.
    """

    def __init__(
        self, checkpoint_dir: Path, *, weights_digest: str, threads: int = 1, max_model_tokens: int = 256
    ) -> None:
        self._dir = checkpoint_dir
        self._weights_digest = weights_digest
        self._threads = threads
        self._max_model_tokens = max_model_tokens
        self._model: Any = None
        self._waiting: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""
        return self._weights_digest

    async def start(self) -> None:
        """Load. Raises `EngineUnavailableError` where the folder cannot be used."""
        try:
            self._tokenizer, self._end_id = read_tokenizer(self._dir)
            self._model = await asyncio.to_thread(self._load)
        except (CheckpointError, OSError, RuntimeError, ValueError) as error:
            raise EngineUnavailableError(f"{self._dir}: {error}") from error

    async def close(self) -> None:
        """Refuse what waits, let what runs finish, free the memory."""
        self._model, waiting, self._waiting = None, self._waiting, []
        for one in waiting:
            if not one.answer.done():
                one.answer.set_exception(EngineUnavailableError("the engine is closed"))
        if self._working is not None:
            await self._working

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt; see `Engine.generate`. "beam" is an `EngineFailedError`."""
        if self._model is None:
            raise EngineUnavailableError("the engine is not running")
        if request.mode == "beam":
            raise EngineFailedError("this engine has no beams: ask for `sample` or `greedy`")
        prompt = encode_prompt(self._tokenizer, request, max_model_tokens=self._max_model_tokens)
        one = _Waiting(prompt, request, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        completions = completions_of(self._tokenizer, await one.answer)
        return Generation(completions, self._weights_digest, prompt_tokens=len(prompt))

    async def _work(self) -> None:
        while batch := self._next_batch():
            try:
                found = await asyncio.to_thread(self._complete, self._model, batch)
            except Exception as error:  # noqa: BLE001 - torch raises all kinds, and each request hears of it
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(EngineFailedError(f"{type(error).__name__}: {error}"))
                continue
            for one, hypotheses in zip(batch, found, strict=True):
                if not one.answer.done():
                    one.answer.set_result(hypotheses)

    def _next_batch(self) -> list[_Waiting]:
        """Take the first that waits, and those behind it that are to be completed in the same way."""
        waiting = [one for one in self._waiting if not one.answer.done()]
        like = [one for one in waiting if _how(one.request) == _how(waiting[0].request)]
        batch = like[: max(1, MAX_ROWS // rows_of(like[0].request))] if like else []
        self._waiting = [one for one in waiting if one not in batch]
        return batch

    def _load(self) -> Any:
        torch.set_num_threads(self._threads)
        model: Any = AutoModelForCausalLM.from_pretrained(self._dir, dtype=torch.float32)
        # Checkpoints bring their own: temperatures, penalties, which are no part of the policy.
        model.generation_config = GenerationConfig()
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def _complete(self, model: Any, batch: list[_Waiting]) -> list[list[Hypothesis]]:
        requests = [one.request for one in batch]
        rows = [one.prompt for one in batch for _ in range(rows_of(one.request))]
        width = max(map(len, rows))
        padded = [[self._end_id] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        draw = SeededDraw(requests, end_id=self._end_id)
        model.generate(
            torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=GenerationConfig(
                max_new_tokens=requests[0].max_tokens,
                do_sample=False,
                eos_token_id=self._end_id,
                pad_token_id=self._end_id,
            ),
            logits_processor=LogitsProcessorList([draw]),
        )
        return draw.hypotheses()


def _how(request: GenerationRequest) -> GenerationRequest:
    """All of a request that rows of one batch must have in common."""
    return replace(request, prompt="", seed=0)
