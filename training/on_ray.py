"""Rollouts on Ray Data: each actor has an engine with the policy and a rater of its own.

What an actor draws is what one process draws, token for token. Rewards agree to about 1e-6: the relevance
model reads texts in batches, and who else is in a batch moves the last bits of an embedding.

A cluster needs corewrite[train,ray] on its nodes, and policy and relevance model at the same paths.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from app.engines.base import Engine
from app.errors import CorewriteError
from app.ray_actors import Workers, run_on_actors
from training.config import ConfigError, LoopConfig, SampleConfig
from training.datasets.instances import Instance
from training.policy_engine import policy_engine
from training.rating import RatedCompletion, Rater
from training.sampler import Draw, rated

# Instances that an actor is given at a time: it is idle at the end of each, so not few; a killed one's are
# done again, so not many. Each actor has several turns, for not all are equally fast.
BATCH, TURNS = 64, 4


@dataclass(frozen=True, slots=True)
class Work:
    """What all actors of a sampler do; it travels to them."""

    draw: Draw
    sampling: SampleConfig
    make_rater: Callable[[], Rater]
    threads: int


class Actor:
    """Engine and rater on an event loop of their own, for as long as the process lives."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._runner = asyncio.Runner()
        self._ready: tuple[Engine, Rater] | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Draw and rate the instances in the column `instances`.

        An error that should end the run is an answer too: raised here, Ray would wrap it in its own.
        """
        (instances,) = batch["instances"]
        try:
            found: Any = self._runner.run(self._rated(instances))
        except CorewriteError as error:
            found = error
        return {"number": batch["number"], "found": _column(found)}

    async def _rated(self, instances: Sequence[Instance]) -> list[list[RatedCompletion]]:
        work = self._work
        if self._ready is None:
            # Never closed: Ray ends an actor by ending its process.
            engine = policy_engine(work.draw.policy, work.sampling, threads=work.threads)
            await engine.start()
            self._ready = engine, work.make_rater()
        engine, rater = self._ready
        return await rated(work.draw, work.sampling, engine, rater, instances)


class RaySampler:
    """A `Sampler` on `workers` actors.

    Args:
        config: how to draw, and with which engine.
        make_rater: called once by each actor; it travels to them.
        workers: who works. GPUs are theirs to take where the engine can use one.
    """

    def __init__(self, config: SampleConfig, make_rater: Callable[[], Rater], workers: Workers) -> None:
        self._config, self._make_rater, self._workers = config, make_rater, workers

    def __call__(
        self, draw: Draw, instances: Sequence[Instance], done: Callable[[], object]
    ) -> list[list[RatedCompletion]]:
        """See `Sampler`."""
        if not instances:
            return []
        size = min(BATCH, math.ceil(len(instances) / (self._workers.count * TURNS)))
        batches = [list(instances[at : at + size]) for at in range(0, len(instances), size)]
        answers: dict[int, list[list[RatedCompletion]]] = {}

        def on_row(row: dict[str, Any]) -> None:
            if isinstance(row["found"], CorewriteError):
                raise row["found"]
            answers[row["number"]] = row["found"]
            for _ in row["found"]:
                done()

        placed = replace(draw, policy=draw.policy.resolve())
        work = Work(placed, self._config, self._make_rater, self._workers.threads)
        run_on_actors(
            Actor,
            {"work": work},
            [{"number": number, "instances": batch} for number, batch in enumerate(batches)],
            self._workers,
            on_row,
        )
        return [rated for number in range(len(batches)) for rated in answers[number]]


def workers_for(config: LoopConfig, count: int, *, address: str | None) -> Workers:
    """Return workers that suit the engine: vLLM takes a GPU each, others take what there is.

    Raises:
        ConfigError: there would be none.
    """
    if count < 1:
        raise ConfigError("--workers must be at least 1")
    gpus: dict[str, Literal["all", "some", "none"]] = {"vllm": "all", "embedded": "none"}
    return Workers(count, config.threads or 1, gpus.get(config.sampling.engine, "some"), address)


def _column(value: Any) -> np.ndarray:
    """A column of one row that holds any object."""
    column = np.empty(1, dtype=object)
    column[0] = value
    return column
