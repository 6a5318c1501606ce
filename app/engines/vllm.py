"""The vLLM engine: `AsyncLLM` in this process, for GPUs; the same code runs vLLM's CPU build in tests.

vLLM schedules, batches and computes in processes of its own; here requests are translated and failures
mapped. Beam search, which `AsyncLLM` does not have, reads the distributions that streamed requests report
(`lookahead`) under the rule of `decoding.Beam`, so that n-best lists mean the same on every engine.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from app.engines.base import Generation, GenerationRequest
from app.engines.decoding import Beam, Hypothesis, rows_needed, spread
from app.engines.lookahead import Lookahead
from app.engines.text import completions_of, encode_prompt, read_tokenizer
from app.engines.vllm_worker import EXTENSION
from app.errors import (
    CheckpointError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineFailedError,
    EngineUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
    from pathlib import Path

WATCH_S = 0.1
"""Seconds between looks at whether vLLM is alive while its weights are changed."""


class VllmEngine:
    """An `Engine` over the checkpoint in `checkpoint_dir`, computed by vLLM.

    Equal requests give equal answers as far as vLLM's kernels do not depend on the batch; sampling is seeded
    per request.

    Args:
        checkpoint_dir: a Hugging Face style folder with `tokenizer.json`.
        weights_digest: SHA-256 (hex) of the weights; every answer carries it.
        max_model_tokens: prompt plus completion.
        beam_width: rows of a beam; a request for more completions than that widens it.
        arguments: further fields of vLLM's `AsyncEngineArgs`, such as `gpu_memory_utilization`; they win.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        *,
        weights_digest: str,
        max_model_tokens: int = 256,
        beam_width: int = 4,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._dir = checkpoint_dir
        self._weights_digest = weights_digest
        self._max_model_tokens = max_model_tokens
        self._beam_width = beam_width
        self._arguments = dict(arguments or {})
        self._numbers = itertools.count()
        self._starting = asyncio.Lock()
        self._llm: Any = None

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""
        return self._weights_digest

    async def start(self) -> None:
        """Load and answer once, for the first answer compiles; does nothing when started already.

        Raises EngineUnavailableError where vLLM is not installed or cannot load the checkpoint.
        """
        async with self._starting:
            if self._llm is not None:
                return
            try:
                self._llm = await self._loaded()
                await self._steps([self._end_id], max_tokens=1, temperature=0.0)
            except EngineError:
                await self._shut_down()
                raise
            except Exception as error:  # vLLM, torch and the processes it starts raise all kinds
                await self._shut_down()
                raise EngineUnavailableError(f"vLLM on {self._dir}: {error}") from error

    async def reload(self, checkpoint_dir: Path, *, weights_digest: str) -> None:
        """See `Reloadable.reload`: done while vLLM is paused and empty, and clears its caches."""
        async with self._starting:
            if self._llm is None:
                raise EngineUnavailableError("the engine is not running")
            try:
                await self._unless_dead(self._reload(checkpoint_dir))
            except CheckpointError as error:
                raise EngineUnavailableError(str(error)) from error
            except Exception as error:
                raise mapped(error) from error
            self._dir, self._weights_digest = checkpoint_dir, weights_digest

    async def close(self) -> None:
        """Stop vLLM's processes; requests that run are answered EngineUnavailableError."""
        async with self._starting:
            await self._shut_down()

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt; see `Engine.generate`. Cancelling aborts it inside vLLM."""
        if self._llm is None:
            raise EngineUnavailableError("the engine is not running")
        prompt = encode_prompt(self._tokenizer, request, max_model_tokens=self._max_model_tokens)
        hypotheses = await self._complete(prompt, request)
        completions = completions_of(self._tokenizer, hypotheses)
        return Generation(completions, self._weights_digest, prompt_tokens=len(prompt))

    async def _reload(self, checkpoint_dir: Path) -> None:
        await self._llm.pause_generation(mode="wait", clear_cache=True)
        try:
            self._tokenizer, self._end_id = read_tokenizer(checkpoint_dir)
            path = {"weights_path": str(checkpoint_dir)}
            await self._llm.collective_rpc("reload_checkpoint", kwargs=path)
        finally:
            await self._llm.resume_generation()

    async def _unless_dead(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, but not longer than vLLM lives: calls to processes that are gone do not return."""
        task = asyncio.create_task(work)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=WATCH_S)
                if not task.done() and self._llm.errored:
                    raise EngineDeadError("vLLM died while its weights were changed")
            task.result()
        finally:
            task.cancel()

    async def _loaded(self) -> Any:
        """Load on a thread. Threads cannot be cancelled: what comes when nobody waits any more is let go."""
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_let_go)
            raise

    async def _shut_down(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    async def _complete(self, prompt: list[int], request: GenerationRequest) -> list[Hypothesis]:
        match request.mode:
            case "greedy":
                outputs = await self._steps(prompt, max_tokens=request.max_tokens, temperature=0.0)
            case "sample":
                outputs = await self._steps(
                    prompt,
                    max_tokens=request.max_tokens,
                    n=request.num_completions,
                    temperature=request.temperature,
                    top_p=request.top_p,
                    seed=spread(request.seed),
                )
            case "beam":
                return await self._beam(prompt, request)
        hypotheses = [
            Hypothesis(
                tuple(output.token_ids),
                float(output.cumulative_logprob),
                "stop" if output.finish_reason == "stop" else "length",
            )
            for output in outputs
        ]
        return sorted(hypotheses, key=lambda hypothesis: -hypothesis.logprob)

    async def _beam(self, prompt: list[int], request: GenerationRequest) -> list[Hypothesis]:
        beam = Beam(
            width=rows_needed(request, beam_width=self._beam_width),
            best=request.num_completions,
            end_id=self._end_id,
            max_tokens=request.max_tokens,
        )
        lookahead = Lookahead(lambda row: self._stream(prompt, row, request.max_tokens, beam.candidates))
        rows: list[tuple[int, ...]] = [()]
        try:
            while rows:
                found = await lookahead.after(rows)
                rows = [(*rows[row], token) for row, token in beam.advance_sparse(found)]
        finally:
            lookahead.close()
        return beam.results()

    async def _stream(
        self, prompt: list[int], row: tuple[int, ...], max_tokens: int, count: int
    ) -> AsyncIterator[tuple[int, dict[int, float]]]:
        """Continue `row` along the most probable tokens: each, and the `count` best of its step."""
        outputs = self._outputs(
            [*prompt, *row],
            self._sampling_params("DELTA", max_tokens=max_tokens - len(row), temperature=0.0, logprobs=count),
        )
        async for output in outputs:
            [completion] = output.outputs
            flat = completion.logprobs
            spans = zip(completion.token_ids, flat.start_indices, flat.end_indices, strict=True)
            for token, begin, end in spans:
                yield token, dict(zip(flat.token_ids[begin:end], flat.logprobs[begin:end], strict=True))

    async def _steps(self, ids: list[int], **parameters: Any) -> Sequence[Any]:
        """Run one request of vLLM to its end; its completions."""
        last = None
        async for output in self._outputs(ids, self._sampling_params("FINAL_ONLY", **parameters)):
            last = output
        if last is None or not last.finished:
            raise EngineUnavailableError("vLLM stopped before the completion was finished")
        outputs: Sequence[Any] = last.outputs
        return outputs

    async def _outputs(self, ids: list[int], sampling: Any) -> AsyncIterator[Any]:
        """What vLLM says of one request."""
        from vllm.inputs import tokens_input  # noqa: PLC0415 -- seconds to import, and only where installed

        # Ready-made input: anything else goes through vLLM's renderer, on a thread.
        try:
            async for output in self._llm.generate(tokens_input(ids), sampling, str(next(self._numbers))):
                yield output
        except Exception as error:
            raise mapped(error) from error

    def _sampling_params(self, kind: str, **parameters: Any) -> Any:
        from vllm import SamplingParams  # noqa: PLC0415 -- as above
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        return SamplingParams(
            **{"logprobs": 0, **parameters},
            stop_token_ids=[self._end_id],
            detokenize=False,
            flat_logprobs=True,
            output_kind=RequestOutputKind[kind],
        )

    def _load(self) -> Any:
        self._tokenizer, self._end_id = read_tokenizer(self._dir)
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
            from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
            from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415
        except ImportError as error:
            raise EngineUnavailableError(f"no vLLM ({error}): install corewrite[vllm]") from error
        arguments = {
            "model": str(self._dir),
            "max_model_len": self._max_model_tokens,
            "max_logprobs": max(20, 2 * self._beam_width),
            "skip_tokenizer_init": True,  # token ids in, token ids out: text is this service's business
            "disable_log_stats": True,
            "worker_extension_cls": EXTENSION,
            "enable_prefix_caching": True,  # a beam reads its prompt once a stream
        }
        # vLLM chooses the size of its batches by who asks: a server's are up to eight times as large.
        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(**(arguments | self._arguments)), usage_context=UsageContext.OPENAI_API_SERVER
        )


def _let_go(loading: asyncio.Task[Any]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.get_loop().run_in_executor(None, loading.result().shutdown)


def mapped(error: Exception) -> EngineError:
    """The engine error that stands for an exception of vLLM's."""
    from vllm import exceptions  # noqa: PLC0415
    from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError  # noqa: PLC0415

    if isinstance(error, EngineError):
        return error
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, VllmDeadError):
        return EngineDeadError(message)
    full = (exceptions.QueueOverflowError, exceptions.MaxQueuedTokensError)
    return EngineBusyError(message) if isinstance(error, full) else EngineFailedError(message)
