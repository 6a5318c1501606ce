"""Samplers: what a policy writes for instances and what that is worth. Here, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from app.engines.base import Engine
from training.config import LoopConfig, SampleConfig
from training.datasets.instances import Instance
from training.policy_engine import running_engine
from training.queries import with_queries
from training.rating import RatedCompletion, Rater
from training.sampling import sample
from training.served import served_relevance


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn from, and how.

    Args:
        policy: a folder with its weights and tokenizer.
        seed: of the draw.
        mode: `greedy` is one completion, what the policy likes best.
    """

    policy: Path
    seed: int
    mode: Literal["sample", "greedy"]


class Sampler(Protocol):
    """A way to get rated completions."""

    def __call__(
        self, draw: Draw, instances: Sequence[Instance], done: Callable[[], object]
    ) -> list[list[RatedCompletion]]:
        """Return the rated completions of each instance, in the order of the instances.

        Args:
            draw: from what, and how.
            instances: any number.
            done: called after each instance.

        Raises:
            CorewriteError: the engine or the relevance model cannot answer.
        """


class LocalSampler:
    """A `Sampler` in this process.

    Args:
        config: how to draw, and with which engine.
        rater: says what is drawn is worth.
        threads: of the CPU.
    """

    def __init__(self, config: SampleConfig, rater: Rater, *, threads: int) -> None:
        self._config, self._rater, self._threads = config, rater, threads

    def __call__(
        self, draw: Draw, instances: Sequence[Instance], done: Callable[[], object]
    ) -> list[list[RatedCompletion]]:
        """See `Sampler`."""

        async def work() -> list[list[RatedCompletion]]:
            async with running_engine(draw.policy, self._config, threads=self._threads) as engine:
                return await rated(draw, self._config, engine, self._rater, instances, done=done)

        return asyncio.run(work())


async def rated(
    draw: Draw,
    config: SampleConfig,
    engine: Engine,
    rater: Rater,
    instances: Sequence[Instance],
    *,
    done: Callable[[], object] = lambda: None,
) -> list[list[RatedCompletion]]:
    """What every `Sampler` does, wherever its engine and its rater are; arguments and errors as it has."""
    drawn = await sample(engine, instances, config, seed=draw.seed, mode=draw.mode, done=done)
    if config.with_query and draw.mode == "sample":
        drawn = with_queries(draw.policy, instances, drawn)
    return await rater.rate(instances, drawn)


def served_rater(config: LoopConfig, corpus: Sequence[str], threads: int) -> Rater:
    """A rater with the deployed relevance model; `corpus` as `Rater.over`."""
    return Rater.over(config.reward, served_relevance(config.relevance, threads=threads), corpus)
