"""What it costs to serve a checkpoint: time of its golden prompts, and memory, each in a process of its own.

Rounds of candidate and incumbent alternate, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Self

import numpy as np

from app.engines.base import GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.registry.checkpoint import load_checkpoint
from app.registry.intake import GOLDEN_TOKENS
from training.gate.verdict import Measurement

ROUNDS = 15
WARM_UP = 3


class ServingError(RuntimeError):
    """A checkpoint could not be served; the message says why."""


def measure_serving(candidate: Path, incumbent: Path, *, rounds: int = ROUNDS) -> dict[str, Measurement]:
    """Return `latency` and `memory`, both as parts of the incumbent's median: its own is about 1.

    Args:
        candidate: folder of a checkpoint, whose golden prompts both answer.
        incumbent: folder of the other.
        rounds: of all golden prompts.

    Raises:
        ServingError: a checkpoint does not answer.
    """
    prompts = [prompt.prompt for prompt in load_checkpoint(candidate).golden]
    with _Served(candidate) as one, _Served(incumbent) as other:
        for of in (one, other):
            for _ in range(WARM_UP):
                of.ask(prompts)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            times[0].extend(one.ask(prompts)[0])
            times[1].extend(other.ask(prompts)[0])
        memory = [of.ask([])[1] for of in (one, other)]
    usual = float(np.median(times[1]))
    return {
        "latency": Measurement(np.array(times[0]) / usual, np.array(times[1]) / usual),
        "memory": Measurement(np.array([memory[0] / memory[1]]), np.array([1.0]), exact=True),
    }


class _Served:
    """A checkpoint in a process of its own, which answers lines with lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 -- our own module
            [sys.executable, "-m", __name__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, prompts: list[str]) -> tuple[list[float], float]:
        """Return the seconds of each prompt, one after the other, and the peak memory so far in bytes."""
        pipes = self._process
        if pipes.stdin is None or pipes.stdout is None:
            raise ServingError("no pipes")
        try:
            pipes.stdin.write(json.dumps(prompts) + "\n")
            pipes.stdin.flush()
            found = json.loads(pipes.stdout.readline())
        except (OSError, ValueError) as error:
            raise ServingError(f"{self._folder}: does not answer ({error}); what it said is above") from error
        return [float(value) for value in found["seconds"]], float(found["bytes"])


async def _serve(folder: Path) -> None:
    engine = EmbeddedEngine(folder, weights_digest="0" * 64, threads=os.cpu_count() or 1)
    await engine.start()
    for line in sys.stdin:
        seconds = []
        for prompt in json.loads(line):
            start = perf_counter()
            await engine.generate(GenerationRequest(prompt=prompt, mode="greedy", max_tokens=GOLDEN_TOKENS))
            seconds.append(perf_counter() - start)
        answer = {"seconds": seconds, "bytes": getrusage(RUSAGE_SELF).ru_maxrss * 1024}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
