"""The backends of `bench_engines.py`: each completes token ids, for concurrent asyncio clients.

`ends(None)` makes every completion run to its full length; `ends(id)` lets the end token end one.
"""

# ruff: noqa: D102 - no public methods

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

MAX_REQUESTS = 32
BEAM_WIDTH = 4
MAX_MODEL_TOKENS = 256


class OnnxRuntime:
    """The service's own engine, handed token ids instead of text."""

    def __init__(self, options: argparse.Namespace) -> None:
        import onnxruntime  # noqa: PLC0415

        from app.engines.embedded import EmbeddedEngine  # noqa: PLC0415

        self.version = onnxruntime.__version__
        self.max_tokens, self.mode = options.max_tokens, options.mode
        self.engine = EmbeddedEngine(
            options.checkpoint,
            weights_digest="bench",
            threads=options.threads,
            max_batch=MAX_REQUESTS * BEAM_WIDTH,
            beam_width=BEAM_WIDTH,
            max_model_tokens=MAX_MODEL_TOKENS,
        )

    async def start(self) -> None:
        await self.engine.start()
        self.engine._tokenizer = _Ids(self.engine._tokenizer)  # noqa: SLF001 - ids in, as for the others

    def ends(self, end_id: int | None) -> None:
        self.engine._end_id = -1 if end_id is None else end_id  # noqa: SLF001 - no id is -1: nothing ends

    async def complete(self, prompt: list[int]) -> list[int]:
        from app.engines.base import GenerationRequest  # noqa: PLC0415

        request = GenerationRequest(json.dumps(prompt), mode=self.mode, max_tokens=self.max_tokens)
        return list((await self.engine.generate(request)).completions[0].token_ids)

    async def close(self) -> None:
        await self.engine.close()


class _Ids:
    """Reads a prompt that is a JSON list of token ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.decode = tokenizer.decode

    def encode(self, text: str, **_: Any) -> Any:
        self.ids = json.loads(text)
        return self


class OpenVino:
    """OpenVINO GenAI's continuous-batching pipeline; one thread steps it while anything is unfinished."""

    def __init__(self, options: argparse.Namespace, **more: Any) -> None:
        import numpy as np  # noqa: PLC0415
        import openvino as ov  # noqa: PLC0415
        import openvino_genai as genai  # noqa: PLC0415
        from qwen3_openvino import Decoder  # noqa: PLC0415

        precision = options.worker.partition("-")[2] or "f32"
        self.version = genai.__version__
        self.folder = Path(tempfile.mkdtemp())
        config = json.loads((options.checkpoint / "config.json").read_text(encoding="utf-8"))
        # Nothing may end a completion: `ignore_eos` does not reach the beam search, an end past all ids does.
        config["eos_token_id"] = config["vocab_size"]
        (self.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        model = Decoder(options.checkpoint).model()
        ov.save_model(model, self.folder / "openvino_model.xml", compress_to_fp16=False)
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.max_num_seqs = MAX_REQUESTS * BEAM_WIDTH
        scheduler.max_num_batched_tokens = 512
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
            "INFERENCE_NUM_THREADS": options.threads,
            **more,
        }
        self.pipeline = genai.ContinuousBatchingPipeline(self.folder, scheduler, "CPU", properties)
        self.step: Callable[[], None] = self.pipeline.step
        self.config = genai.GenerationConfig()
        self.config.max_new_tokens = options.max_tokens
        self.config.do_sample = self.config.apply_chat_template = False
        if options.mode == "beam":
            self.config.num_beams, self.config.length_penalty = BEAM_WIDTH, 0.0
            self.config.stop_criteria = genai.StopCriteria.NEVER
        self.config.ignore_eos = True  # the equality check cuts at the end token
        self.tensor = lambda ids: ov.Tensor(np.array([ids], np.int64))
        self.running = genai.py_openvino_genai.GenerationStatus.RUNNING
        self.number = 0
        self.wake = threading.Condition()
        self.unfinished: list[tuple[Any, asyncio.Future[list[int]]]] = []
        self.closing = False
        self.thread = threading.Thread(target=self.drive, daemon=True)

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    def ends(self, _: int | None) -> None:
        return

    async def complete(self, prompt: list[int]) -> list[int]:
        future: asyncio.Future[list[int]] = self.loop.create_future()
        with self.wake:
            self.number += 1
            handle = self.pipeline.add_request(self.number, self.tensor(prompt), self.config)
            self.unfinished.append((handle, future))
            self.wake.notify()
        return await future

    def drive(self) -> None:
        while True:
            with self.wake:
                while not (self.unfinished or self.closing):
                    self.wake.wait()
                if self.closing:
                    return
            self.step()
            with self.wake:
                finished = [pair for pair in self.unfinished if pair[0].get_status() != self.running]
                self.unfinished = [pair for pair in self.unfinished if pair not in finished]
            for handle, future in finished:
                tokens = list(handle.read_all()[0].generated_ids)
                self.loop.call_soon_threadsafe(future.set_result, tokens)

    async def close(self) -> None:
        with self.wake:
            self.closing = True
            self.wake.notify()
        await asyncio.to_thread(self.thread.join)
        shutil.rmtree(self.folder)


class Vllm:
    """vLLM's `AsyncLLM` in float32; a beam is the beam search of its own server.

    It computes in its process's one child: without the executor's further process, which vLLM's CPU build
    starts only to set up threads, a lone request is answered sooner.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_NO_USAGE_STATS": "1",
        }
        import vllm  # noqa: PLC0415
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415

        self.version = vllm.__version__
        self.max_tokens, self.mode = options.max_tokens, options.mode
        self.numbers = itertools.count()
        self.arguments = AsyncEngineArgs(
            model=str(options.checkpoint),
            dtype="float32",
            enforce_eager=True,
            distributed_executor_backend="uni",
            max_model_len=MAX_MODEL_TOKENS,
            disable_log_stats=True,
        )

    async def start(self) -> None:
        from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin  # noqa: PLC0415
        from vllm.inputs import tokens_input  # noqa: PLC0415
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        self.input = tokens_input
        self.llm = await asyncio.to_thread(AsyncLLM.from_engine_args, self.arguments)
        self.beams: Any = BeamSearchOnlineMixin()
        self.beams.renderer, self.beams.engine_client = self.llm.renderer, self.llm

    def ends(self, end_id: int | None) -> None:
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.sampling_params import BeamSearchParams, RequestOutputKind  # noqa: PLC0415

        limits = {"max_tokens": self.max_tokens, "temperature": 0.0, "ignore_eos": end_id is None}
        self.beam_params = BeamSearchParams(beam_width=BEAM_WIDTH, length_penalty=0.0, **limits)
        self.greedy_params = SamplingParams(
            **limits, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )

    async def complete(self, prompt: list[int]) -> list[int]:
        ids, number = self.input(list(prompt)), str(next(self.numbers))
        if self.mode == "beam":
            outputs = self.beams.beam_search(ids, number, self.beam_params)
        else:
            outputs = self.llm.generate(ids, self.greedy_params, number)
        return [list(output.outputs[0].token_ids) async for output in outputs][-1]

    async def close(self) -> None:
        await asyncio.to_thread(self.llm.shutdown)


class Collected:
    """For a library without continuous batching: what waits when it is free becomes the next batch."""

    def __init__(self, version: str, run: Callable[[list[list[int]]], list[list[int]]]) -> None:
        self.version, self.run = version, run
        self.waiting: list[tuple[list[int], asyncio.Future[list[int]]]] = []
        self.arrived = asyncio.Event()

    async def start(self) -> None:
        self.task = asyncio.create_task(self.drive())

    def ends(self, _: int | None) -> None:
        return

    async def complete(self, prompt: list[int]) -> list[int]:
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.waiting.append((prompt, future))
        self.arrived.set()
        return await future

    async def drive(self) -> None:
        while True:
            await self.arrived.wait()
            batch, self.waiting = self.waiting[:MAX_REQUESTS], self.waiting[MAX_REQUESTS:]
            if not self.waiting:
                self.arrived.clear()
            try:
                answers = await asyncio.to_thread(self.run, [prompt for prompt, _ in batch])
            except Exception as error:  # noqa: BLE001 - it is raised where each of them waits
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), tokens in zip(batch, answers, strict=True):
                future.set_result(tokens)

    async def close(self) -> None:
        self.task.cancel()


def transformers(options: argparse.Namespace) -> Collected:
    """`generate` in float32 on left-padded batches."""
    import torch  # noqa: PLC0415
    import transformers as library  # noqa: PLC0415

    torch.set_num_threads(options.threads)
    model: Any = library.Qwen3ForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    search = {"num_beams": BEAM_WIDTH, "length_penalty": 0.0} if options.mode == "beam" else {}
    # A checkpoint saved while training says that it wants no cache of keys and values.
    limits = {"max_new_tokens": options.max_tokens, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    limits |= search

    def run(prompts: list[list[int]]) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, **limits)
        tokens: list[list[int]] = out[:, width:].tolist()
        return tokens

    return Collected(library.__version__, run)


def ctranslate2(options: argparse.Namespace) -> Collected:
    """CTranslate2 in float32, converted from the same folder; needs transformers beside it."""
    import ctranslate2 as library  # noqa: PLC0415
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        shutil.copytree(options.checkpoint, source)
        end = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "unk_token": "<|pad|>", "bos_token": "<|pad|>"}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **end}
        (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        TransformersConverter(str(source)).convert(str(target), quantization="float32")
        generator = library.Generator(
            str(target), device="cpu", compute_type="float32", intra_threads=options.threads
        )
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))

    def run(prompts: list[list[int]]) -> list[list[int]]:
        results = generator.generate_batch(
            [[tokenizer.id_to_token(i) for i in prompt] for prompt in prompts],
            max_length=options.max_tokens,
            min_length=options.max_tokens,
            end_token=[],
            sampling_topk=1,
            beam_size=BEAM_WIDTH if options.mode == "beam" else 1,
            length_penalty=0.0 if options.mode == "beam" else 1.0,
            include_prompt_in_result=False,
        )
        return [list(result.sequences_ids[0]) for result in results]

    return Collected(library.__version__, run)


def make(options: argparse.Namespace) -> Any:
    """The backend named by `options.worker`."""
    match options.worker:
        case "onnxruntime":
            return OnnxRuntime(options)
        case "transformers":
            return transformers(options)
        case "ctranslate2":
            return ctranslate2(options)
        case "vllm":
            return Vllm(options)
        case _:
            return OpenVino(options)
