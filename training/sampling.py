"""Drawing completions from the policy, through any engine: prompts, tokens and decoding as in service.

A draw is a function of the seed and the prompt alone: a phase that was interrupted draws the same again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

from tokenizers import Tokenizer

from app.contracts.prompt import render
from app.engines.base import Completion, Engine, GenerationRequest
from training.config import SampleConfig
from training.datasets.instances import Instance, Search

CONCURRENCY = 64


def prompt_ids(tokenizer: Tokenizer, search: Instance | Search) -> list[int]:
    """The prompt of a search as every engine reads it."""
    ids: list[int] = tokenizer.encode(render(search.query, search.context), add_special_tokens=False).ids
    return ids


async def sample(
    engine: Engine,
    instances: Sequence[Instance | Search],
    config: SampleConfig,
    *,
    seed: int,
    mode: Literal["sample", "greedy"] = "sample",
    done: Callable[[], object] = lambda: None,
) -> list[tuple[Completion, ...]]:
    """Return the completions of each instance, in the order of the instances.

    Args:
        engine: started, with the policy's weights.
        instances: whose queries to rewrite.
        config: how to draw; `greedy` takes one completion and draws nothing.
        seed: of the draw.
        mode: `greedy` is what the policy likes best.
        done: called after each instance.

    Raises:
        EngineError: the engine cannot answer.
    """
    free = asyncio.Semaphore(CONCURRENCY)

    async def one(instance: Instance | Search) -> tuple[Completion, ...]:
        prompt = render(instance.query, instance.context)
        request = GenerationRequest(
            prompt=prompt,
            mode=mode,
            num_completions=config.num_generations if mode == "sample" else 1,
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=zlib.crc32(f"{seed}\n{prompt}".encode()),
        )
        async with free:
            found = await engine.generate(request)
        done()
        return found.completions

    return list(await asyncio.gather(*map(one, instances)))
