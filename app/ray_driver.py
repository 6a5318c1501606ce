"""The process that talks to Ray, so that the one which asked does not have to live with it.

    python -m app.ray_driver

Its work comes as a pickle on standard input, and what became of it goes as pickles to standard output: rows,
and last None or a CorewriteError. When standard input ends, it ends, and with it all that it started.

Ray ends the whole process, with status 1 and no word, where a thread of its own asks it for something after
its shutdown, and iterations that were left early have such threads.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, BinaryIO

from app.errors import CorewriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.ray_actors import Work, Workers

# Enough for queries; Ray's own choice is a third of the machine's memory.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
# Read by Ray when it is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def _rows(work: Work) -> Iterator[dict[str, Any]]:
    """Start Ray, have the work done, and yield the rows as they come, in any order.

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
    workers = work.workers
    here: dict[str, Any] = {
        "num_cpus": workers.count * workers.threads,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    ray.init(
        workers.address or "local",
        log_to_driver=False,
        logging_level=logging.ERROR,
        **({} if workers.address else here),
    )
    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    gpu = _gpu_of_each(workers, resources().get("GPU", 0))
    done = ray.data.from_items(list(work.rows), override_num_blocks=len(work.rows)).map_batches(
        work.actor,
        fn_constructor_kwargs=dict(work.arguments),
        batch_size=1,
        concurrency=min(workers.count, len(work.rows)),
        num_cpus=workers.threads,
        num_gpus=gpu,
    )
    yield from done.iter_rows()


def _gpu_of_each(workers: Workers, there: float) -> int:
    if workers.gpus == "none" or (workers.gpus == "some" and not there):
        return 0
    if there < workers.count:
        raise CorewriteError(
            f"{workers.count} workers take a GPU each, and Ray sees {there:g}: ask for fewer"
        )
    return 1


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Do the work that standard input brings."""
    # A shell that runs things in the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What else is printed here, by Ray or by whoever, is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work: Work = pickle.load(sys.stdin.buffer)  # noqa: S301 -- from the process that started this one
    threading.Thread(target=_end_with_input, daemon=True).start()
    last: CorewriteError | None = None
    try:
        for row in _rows(work):
            _say(row, answers)
    except CorewriteError as error:
        last = error
    except Exception as error:  # noqa: BLE001 -- whatever Ray has to say
        last = CorewriteError(f"Ray: {error}")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say(last, answers)
    if ray := sys.modules.get("ray"):
        ray.shutdown()


def _say(answer: object, answers: BinaryIO) -> None:
    pickle.dump(answer, answers)
    answers.flush()


if __name__ == "__main__":
    main()
