"""Threads of the console's own: a registry or store that hangs holds up its pages, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")
MOST = 4
PATIENCE_S = 15.0


class Threads:
    """Runs what blocks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="console")

    async def run(self, what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what it returns, or raise what it raises.

        Raises:
            StoreError: it takes too long; it goes on behind, and nobody waits for it.
        """
        asked = asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.wait_for(asyncio.shield(asked), PATIENCE_S)
        except TimeoutError as error:
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise StoreError(f"{what} has not answered within {PATIENCE_S:g} s") from error

    async def close(self) -> None:
        """Let go; what still runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
