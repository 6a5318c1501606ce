"""Rows over actors of Ray Data: Ray started without a word, and ended whatever happens.

A cluster needs corewrite installed on its nodes, and the same files at the same paths.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from app.errors import CorewriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# Enough for queries; Ray's own choice is a third of the machine's memory.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
_PATIENCE_S = 30.0
# Read by Ray when it is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side writes advice to standard error
}


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
        actor: called with columns of one row, answers with columns.
        arguments: the actors are made with.
        rows: what there is to do.
        workers: who does it.
        on_row: what it raises ends the run.

    Raises:
        CorewriteError: Ray is missing or cannot start, or GPUs are missing.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 -- takes seconds, and who does not ask for it need not install it
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise CorewriteError("--engine ray needs the package ray: install corewrite[ray]") from error
    here: dict[str, Any] = {
        "num_cpus": workers.count * workers.threads,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    try:
        with _hushed():
            ray.init(
                workers.address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if workers.address else here),
            )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        resources: Callable[[], dict[str, float]] = ray.cluster_resources
        gpu = _gpu_of_each(workers, resources().get("GPU", 0))
        done = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map_batches(
            actor,
            fn_constructor_kwargs=dict(arguments),
            batch_size=1,
            concurrency=min(workers.count, len(rows)),
            num_cpus=workers.threads,
            num_gpus=gpu,
        )
        try:
            for row in done.iter_rows():
                on_row(row)
        finally:
            # It ends with its thread, before Ray does: on a busy machine that took this process with it.
            del done
            for thread in threading.enumerate():
                if thread.name.startswith("StreamingExecutor"):
                    thread.join(_PATIENCE_S)
    finally:
        ray.shutdown()


def _gpu_of_each(workers: Workers, there: float) -> int:
    if workers.gpus == "none" or (workers.gpus == "some" and not there):
        return 0
    if there < workers.count:
        raise CorewriteError(
            f"{workers.count} workers take a GPU each, and Ray sees {there:g}: ask for fewer"
        )
    return 1


@contextmanager
def _hushed() -> Iterator[None]:
    """Nothing that this process writes to its standard error is seen; exceptions are as ever."""
    # Told by its variable to be quiet, Ray's C++ side says aloud that it was told so.
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
