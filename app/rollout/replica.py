"""What one replica does about rollouts: follows the store, counts, and decides where it is its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.errors import StoreError
from app.rollout.controller import Controller, decide_and_tell
from app.rollout.counter import Counter
from app.rollout.database import Database
from app.rollout.follower import Follower
from app.rollout.orders import Orders
from app.rollout.schema import upgrade
from app.telemetry import LOGGER

UPGRADE_AGAIN_S = 5.0


class RolloutReplica:
    """Lives on one event loop.

    Args:
        database: of the store.
        follower: keeps this replica at what the store says.
        counter: counts.
        controller: decides; None: this replica may not.
        orders: what people may ask.
        decide_s: seconds between decisions.
        on_decision: told what came of each; from a thread of its own.
    """

    def __init__(
        self,
        database: Database,
        *,
        follower: Follower,
        counter: Counter,
        controller: Controller | None,
        orders: Orders,
        decide_s: float,
        on_decision: Callable[[str], object],
    ) -> None:
        self._database, self.follower, self.counter = database, follower, counter
        self._controller, self._decide_s, self.orders = controller, decide_s, orders
        self._on_decision = on_decision
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="controller")

    async def start(self) -> None:
        """Begin with what the store says. One that is out of reach holds nothing up: it is asked again."""
        if await self._upgraded():
            await self.follower.catch_up()
        work: list[Coroutine[Any, Any, None]] = [self._follow(), self.follower.watch(), self.counter.run()]
        if self._controller is not None:
            work.append(self._decide(self._controller))
        self._tasks = [asyncio.create_task(one) for one in work]

    async def close(self) -> None:
        """Stop, and hand over what was counted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.counter.close()
        await self.follower.close()
        # Whoever is at the store brings its connection back first.
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._database.close()

    def readiness(self) -> dict[str, object]:
        """Return what `/readyz` says: a replica without its store serves on, with the plan it had."""
        sight = self.follower.sight
        return {
            "store": "reachable" if sight.why is None else sight.why,
            "seen": sight.since and sight.since.isoformat(timespec="milliseconds"),
            "canary": self.follower.loaded,
        }

    async def _at_the_store(self, work: Callable[..., object], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _follow(self) -> None:
        while not await self._upgraded():  # noqa: ASYNC110 -- nobody tells when a store is back
            await asyncio.sleep(UPGRADE_AGAIN_S)
        await self.follower.follow()

    async def _upgraded(self) -> bool:
        """Whether the store is of this version now."""
        try:
            await self._at_the_store(upgrade, self._database)
        except StoreError as error:
            LOGGER.warning("rollouts: no store", extra={"fields": {"detail": str(error)}})
            self.follower.lost(str(error))
            return False
        return True

    async def _decide(self, controller: Controller) -> None:
        while True:
            await asyncio.sleep(self._decide_s)
            await self._at_the_store(decide_and_tell, controller, self._on_decision)
