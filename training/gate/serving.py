"""What it costs to serve a checkpoint: time of its golden prompts, and memory, each in a process of its own.

A round is all golden prompts by the one and then by the other, the other first in every second round:
whatever else the machine does meets both. What is compared is the median of each round, its logarithm: a
machine that is busy for a second makes some rounds slow, and no checkpoint.

Both generate as many tokens for a prompt as the one that ends it sooner: there are few golden prompts, and
who says one word more in two of them is no slower. How much is said is for `tokens` to judge, on the window.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

ROUNDS = 120
WARM_UP = 3


class ServingError(RuntimeError):
    """A checkpoint could not be served; the message says why."""


def measure_serving(candidate: Path, incumbent: Path, *, rounds: int = ROUNDS) -> dict[str, Measurement]:
    """Return `latency`, ln of a round's median in ms, and `memory`, as a part of the incumbent's.

    Args:
        candidate: folder of a checkpoint, whose golden prompts both answer.
        incumbent: folder of the other.
        rounds: of all golden prompts.

    Raises:
        ServingError: a checkpoint does not answer.
    """
    whole = [(prompt.prompt, GOLDEN_TOKENS) for prompt in load_checkpoint(candidate).golden]
    with _Served(candidate) as one, _Served(incumbent) as other:
        for _ in range(WARM_UP):
            said = [of.ask(whole).tokens for of in (one, other)]
        asked = [(prompt, min(ends)) for (prompt, _), *ends in zip(whole, *said, strict=True)]
        times: dict[_Served, list[float]] = {one: [], other: []}
        for number in range(rounds):
            for of in (one, other) if number % 2 else (other, one):
                times[of].append(1e3 * float(np.median(of.ask(asked).seconds)))
        memory = [of.ask([]).bytes for of in (one, other)]
    return {
        "latency": Measurement(np.log(times[one]), np.log(times[other])),
        "memory": Measurement(np.array([memory[0] / memory[1]]), np.array([1.0]), exact=True),
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    """Seconds and tokens of each prompt, one after the other, and the peak memory so far in bytes."""

    seconds: list[float]
    tokens: list[int]
    bytes: int


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

    def ask(self, prompts: Sequence[tuple[str, int]]) -> _Answer:
        """Have prompts answered with at most so many tokens each."""
        pipes = self._process
        if pipes.stdin is None or pipes.stdout is None:
            raise ServingError("no pipes")
        try:
            pipes.stdin.write(json.dumps(prompts) + "\n")
            pipes.stdin.flush()
            return _Answer(**json.loads(pipes.stdout.readline()))
        except (OSError, ValueError) as error:
            raise ServingError(f"{self._folder}: does not answer ({error}); what it said is above") from error


async def _serve(folder: Path) -> None:
    # One thread: what a core can do. Threads that wait for each other measure the machine.
    engine = EmbeddedEngine(folder, weights_digest="0" * 64, threads=1)
    await engine.start()
    for line in sys.stdin:
        answer = _Answer([], [], getrusage(RUSAGE_SELF).ru_maxrss * 1024)
        for prompt, most in json.loads(line):
            start = perf_counter()
            found = await engine.generate(GenerationRequest(prompt=prompt, mode="greedy", max_tokens=most))
            answer.seconds.append(perf_counter() - start)
            answer.tokens.append(len(found.completions[0].token_ids))
        sys.stdout.write(json.dumps(asdict(answer)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
