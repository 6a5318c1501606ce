"""Rollouts: what a policy writes for instances and what that is worth. Here, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from app.engines.base import Engine
from training.config import LoopConfig, SampleConfig
from training.datasets.instances import Instance
from training.policy_engine import policy_engine
from training.rating import RatedCompletion, Rater
from training.sampling import sample
from training.served import served_relevance

Mode = Literal["sample", "greedy"]


class Rollout(Protocol):
    """A way to get rated completions."""

    def __call__(
        self,
        policy: Path,
        instances: Sequence[Instance],
        *,
        seed: int,
        mode: Mode,
        done: Callable[[], object],
    ) -> list[list[RatedCompletion]]:
        """Return the rated completions of each instance, in the order of the instances.

        Args:
            policy: a folder with its weights and tokenizer.
            instances: any number.
            seed: of the draw.
            mode: `greedy` is one completion, what the policy likes best.
            done: called after each instance.

        Raises:
            CorewriteError: the engine or the relevance model cannot answer.
        """


class LocalRollout:
    """A `Rollout` in this process.

    Args:
        config: how to draw, and with which engine.
        rater: says what is drawn is worth.
        threads: of the CPU.
    """

    def __init__(self, config: SampleConfig, rater: Rater, *, threads: int) -> None:
        self._config, self._rater, self._threads = config, rater, threads

    def __call__(
        self,
        policy: Path,
        instances: Sequence[Instance],
        *,
        seed: int,
        mode: Mode,
        done: Callable[[], object],
    ) -> list[list[RatedCompletion]]:
        """See `Rollout`."""

        async def work() -> list[list[RatedCompletion]]:
            engine = policy_engine(policy, self._config, threads=self._threads)
            await engine.start()
            try:
                return await drawn_and_rated(
                    engine, self._rater, instances, self._config, seed=seed, mode=mode, done=done
                )
            finally:
                await engine.close()

        return asyncio.run(work())


async def drawn_and_rated(
    engine: Engine,
    rater: Rater,
    instances: Sequence[Instance],
    config: SampleConfig,
    *,
    seed: int,
    mode: Mode,
    done: Callable[[], object],
) -> list[list[RatedCompletion]]:
    """Return what a started engine draws, rated; see `Rollout`."""
    drawn = await sample(engine, instances, config, seed=seed, mode=mode, done=done)
    return await rater.rate(instances, drawn)


def served_rater(config: LoopConfig, corpus: Sequence[str], threads: int) -> Rater:
    """A rater with the deployed relevance model; `corpus` as `Rater.over`."""
    return Rater.over(config.reward, served_relevance(config.relevance, threads=threads), corpus)
