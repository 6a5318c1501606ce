"""Which engine the settings ask for, proven and under supervision."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from app.engines.breaker import Breaker
from app.engines.proof import prove
from app.engines.qwen3_files import read_config
from app.engines.supervised import SupervisedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engines.base import Engine
    from app.registry.served import ServedCheckpoint
    from app.settings import Settings


def supervised_engine(
    settings: Settings,
    checkpoint: ServedCheckpoint,
    *,
    instead: Engine | None = None,
    on_restart: Callable[[], None] = lambda: None,
) -> SupervisedEngine:
    """An engine of the settings for `checkpoint`, not started; `instead` replaces it where it is given."""
    return SupervisedEngine(
        checkpoint,
        lambda checkpoint: make_engine(settings, checkpoint) if instead is None else instead,
        breaker=Breaker(max_failures=settings.breaker_max_failures, open_s=settings.breaker_open_s),
        prove=_prove,
        timeout_s=settings.generation_timeout_s,
        on_restart=on_restart,
    )


async def _prove(engine: Engine, checkpoint: ServedCheckpoint) -> None:
    """Raise unless the files that the engine has read are the manifest's, and it computes what they say."""
    await asyncio.to_thread(checkpoint.verify)
    await prove(engine, checkpoint.golden, weights_digest=checkpoint.weights_digest)


def make_engine(settings: Settings, checkpoint: ServedCheckpoint) -> Engine:
    """An engine for `checkpoint`, not started. Raises CheckpointError where its sizes cannot be read."""
    window = settings.max_model_tokens or read_config(checkpoint.path).max_position_embeddings
    # Each import where it is needed: ONNX Runtime, vLLM and httpx are loaded by those who use them.
    match settings.engine:
        case "embedded":
            from app.engines.embedded import EmbeddedEngine  # noqa: PLC0415

            return EmbeddedEngine(
                checkpoint.path,
                weights_digest=checkpoint.weights_digest,
                threads=settings.engine_threads or len(os.sched_getaffinity(0)),
                max_batch=settings.engine_max_batch,
                max_queue=settings.engine_max_queue,
                max_model_tokens=window,
                beam_width=settings.beam_width,
            )
        case "vllm":
            from app.engines.vllm import VllmEngine  # noqa: PLC0415

            return VllmEngine(
                checkpoint.path,
                weights_digest=checkpoint.weights_digest,
                max_model_tokens=window,
                beam_width=settings.beam_width,
                arguments=settings.vllm_arguments,
            )
        case "openai":
            from app.engines.openai import OpenaiEngine  # noqa: PLC0415

            key, adapters = settings.openai_api_key, settings.openai_adapters
            return OpenaiEngine(
                checkpoint.path,
                base_url=settings.openai_url.format(id=checkpoint.id),
                model=settings.openai_model.format(id=checkpoint.id),
                weights_digest=checkpoint.weights_digest,
                max_model_tokens=window,
                beam_width=settings.beam_width,
                api_key=key.get_secret_value() if key else None,
                adapter_path=adapters.format(id=checkpoint.id) if adapters else None,
            )
