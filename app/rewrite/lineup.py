"""Which checkpoint answers, and who still uses the one before it.

A generation takes a hold on what serves now and keeps it to its end, so that no answer can mix two
checkpoints, and what was replaced is closed only when its last generation has ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from app.engines.supervised import SupervisedEngine
    from app.registry.served import ServedCheckpoint
    from app.rollout.assignment import Variant


@dataclass(slots=True)
class Lineups:
    """The lineup of each variant; the canary has one while its checkpoint is loaded."""

    stable: Lineup
    canary: Lineup | None = None

    def of(self, variant: Variant) -> Lineup | None:
        """The variant's; None where it has none."""
        return self.stable if variant == "stable" else self.canary


@dataclass(frozen=True, eq=False, slots=True)
class Serving:
    """A checkpoint and the engine that computes it."""

    checkpoint: ServedCheckpoint
    engine: SupervisedEngine


async def started(
    checkpoint: ServedCheckpoint, engine_for: Callable[[ServedCheckpoint], SupervisedEngine]
) -> Serving:
    """Return a checkpoint in an engine of its own, started and proven.

    Raises:
        CheckpointError, EngineError: it does not start; nothing of it is left.
    """
    engine = engine_for(checkpoint)
    try:
        await engine.start()
    except BaseException:
        await engine.close()
        raise
    return Serving(checkpoint, engine)


class Lineup:
    """Holds what serves. Lives on one event loop. `on_switch` is told the old and the new."""

    def __init__(
        self, current: Serving, *, on_switch: Callable[[Serving, Serving], None] = lambda _old, _new: None
    ) -> None:
        self.current = current
        self._on_switch = on_switch
        self._users: Counter[Serving] = Counter()
        self._open = asyncio.Event()
        self._open.set()
        self._idle: dict[Serving, asyncio.Event] = {}

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Serving]:
        """What serves now, for the length of one generation; waits while `paused`."""
        while not self._open.is_set():  # it may have closed again before this waiter had its turn
            await self._open.wait()
        serving = self.current
        self._users[serving] += 1
        try:
            yield serving
        finally:
            self._users[serving] -= 1
            if not self._users[serving]:
                del self._users[serving]
                if idle := self._idle.pop(serving, None):
                    idle.set()

    def switch(self, serving: Serving) -> None:
        """From now on `serving` answers; holds taken before stay with what they hold."""
        old, self.current = self.current, serving
        self._on_switch(old, serving)

    async def idle(self, serving: Serving) -> None:
        """Return when nobody holds `serving`."""
        while serving in self._users:
            await self._idle.setdefault(serving, asyncio.Event()).wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep new generations waiting; cached answers and deadlines go on. Not to be nested."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()
