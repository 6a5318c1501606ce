"""Which engine draws from a policy: those of the service where they can, transformers where they cannot."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from app.engines.base import Engine
from app.engines.embedded import EmbeddedEngine
from app.engines.qwen3_files import read_config
from app.engines.vllm import VllmEngine
from app.errors import CheckpointError
from training.config import SampleConfig
from training.transformers_engine import TransformersEngine

NO_DIGEST = "0" * 64  # nobody asks a policy under training which weights answered


@asynccontextmanager
async def running_engine(policy: Path, config: SampleConfig, *, threads: int) -> AsyncIterator[Engine]:
    """A `policy_engine`, started, and closed at the end.

    Raises:
        EngineError: it does not start.
    """
    engine = policy_engine(policy, config, threads=threads)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def policy_engine(policy: Path, config: SampleConfig, *, threads: int) -> Engine:
    """Return an engine over the folder of a policy, not started.

    Args:
        policy: a Hugging Face style folder with `tokenizer.json`.
        config: names the engine, and its window.
        threads: of the CPU.
    """
    window = config.max_model_tokens
    match engine_kind(policy, config.engine):
        case "vllm":
            # vLLM wants a share of the whole GPU: what a pass over the pairs has left there is in its way.
            gc.collect()
            torch.cuda.empty_cache()
            return VllmEngine(
                policy,
                weights_digest=NO_DIGEST,
                max_model_tokens=window,
                arguments=config.vllm_arguments,
            )
        case "embedded":
            return EmbeddedEngine(policy, weights_digest=NO_DIGEST, threads=threads, max_model_tokens=window)
        case "transformers":
            return TransformersEngine(
                policy, weights_digest=NO_DIGEST, threads=threads, max_model_tokens=window
            )


def engine_kind(
    policy: Path, wanted: Literal["auto", "vllm", "embedded", "transformers"]
) -> Literal["vllm", "embedded", "transformers"]:
    """Return what `wanted` means on this machine.

    "auto" is vLLM where it is installed and a GPU is there, else the embedded engine where it can read the
    policy, else transformers.
    """
    if wanted != "auto":
        return wanted
    if find_spec("vllm") is not None and torch.cuda.is_available():
        return "vllm"
    try:
        read_config(policy)
    except CheckpointError:
        return "transformers"
    # Large models come in several files, which the embedded engine does not read.
    return "embedded" if (policy / "model.safetensors").is_file() else "transformers"
