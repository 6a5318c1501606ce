"""Threads of the console's own: a registry or store that hangs holds up pages that need it, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")
MOST = 2
"""For each thing that is waited for."""
PATIENCE_S = 15.0


class Threads:
    """Runs what blocks. Each thing that is waited for has threads of its own: a registry delays no kill."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def run(self, what: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what it returns, or raise what it raises.

        Raises:
            StoreError: it takes too long; it goes on behind, and nobody waits for it.
        """
        if what not in self._pools:
            self._pools[what] = ThreadPoolExecutor(MOST, thread_name_prefix="console")
        pool = self._pools[what]
        asked = asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.wait_for(asyncio.shield(asked), self._patience_s)
        except TimeoutError as error:
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise StoreError(f"{what} has not answered within {self._patience_s:g} s") from error

    async def close(self) -> None:
        """Let go; what still runs ends by itself."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
