"""Rows over actors of Ray Data, in a process of its own that ends with the call, whatever happens.

A cluster needs corewrite installed on its nodes, and the same files at the same paths.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from app.errors import CorewriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Workers:
    """Actors to have.

    Args:
        count: how many.
        threads: CPU cores of each.
        gpus: "all": each takes a GPU. "some": where the cluster has any.
        address: of a running cluster; None: one of this machine, for the call alone.
    """

    count: int
    threads: int = 1
    gpus: Literal["all", "some", "none"] = "none"
    address: str | None = None


class Work(NamedTuple):
    """What Ray is told; see `run_on_actors`."""

    actor: type
    arguments: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    workers: Workers


def run_on_actors(
    actor: type,
    arguments: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    workers: Workers,
    on_row: Callable[[dict[str, Any]], None],
) -> None:
    """Give each row to an actor, and each row of the answers to `on_row` as it comes, in any order.

    What a killed actor was given is done again by another.

    Args:
        actor: called with columns of one row, answers with columns; of a module that can be imported.
        arguments: the actors are made with; picklable, as rows and answers are.
        rows: what there is to do.
        workers: who does it.
        on_row: what it raises ends the run.

    Raises:
        CorewriteError: Ray is missing, cannot start or ended too early, or GPUs are missing.
    """
    with _Driver() as driver:
        for row in driver.answers(Work(actor, arguments, rows, workers)):
            on_row(row)


class _Driver:
    """The process that talks to Ray."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Ray's advice; what matters comes as an answer
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        return self

    def answers(self, work: Work) -> Iterator[dict[str, Any]]:
        tell, told = self._process.stdin, self._process.stdout
        assert tell is not None  # noqa: S101 -- it is a pipe
        assert told is not None  # noqa: S101 -- and this
        try:
            pickle.dump(work, tell)
            tell.flush()
            while isinstance(answer := pickle.load(told), dict):  # noqa: S301 -- our own process
                yield answer
        except (BrokenPipeError, EOFError) as error:
            raise CorewriteError(
                f"Ray's process ended with status {self._process.wait()} before the work was done; "
                "its logs are in /tmp/ray/session_latest/logs"
            ) from error
        if answer is not None:
            raise answer

    def __exit__(self, *_: object) -> None:
        with self._process as process, suppress(BrokenPipeError):
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
