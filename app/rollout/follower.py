"""Keeps this replica at what the store says: who has what, the kill switch, and the checkpoints for it.

Who has what changes at once, checkpoints when they are loaded and proven: until then the canary's clients get
the original, and stable's what they had. A store that is out of reach changes nothing, and that is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.errors import CorewriteError, StoreError
from app.rewrite.lineup import Lineup
from app.rollout.traffic import ASKED
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from app.contracts.manifest import Digest
    from app.rewrite.lineup import Lineups, Serving
    from app.rollout.state import Deployment, Rollout
    from app.rollout.traffic import Dealing, Traffic


BEAT_S = 2.0
"""About so often a replica says that it lives, and at once what it has loaded."""
CATCH_UP_S = 90.0
"""So long a replica that starts waits for a checkpoint: less than its start-up probe gives it (k8s/base)."""


class Source(Protocol):
    """What is followed; it blocks."""

    def deployment(self) -> Deployment:
        """What is deployed. Raises StoreError."""

    def beat(self, loaded: Digest | None) -> None:
        """Say that this replica lives, and what it has loaded for the canary. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of the store.

    Args:
        since: when it was last in reach; None: never.
        why: it is out of reach now; None: it is not.
    """

    since: datetime | None
    why: str | None


class Follower:
    """Lives on one event loop; `follow` and `watch` go on until cancelled, `close` lets go of the canary.

    Args:
        source: what to follow.
        traffic: whose dealing is changed.
        lineups: whose checkpoints are.
        dealt: how traffic is dealt under a deployment.
        load: loads a checkpoint by its digest, started and proven. Raises CorewriteError.
        kill_file: while it is there, everybody gets the original.
        now: the time of day.
        poll_s: seconds between looks.
        again_s: seconds before a checkpoint that could not be loaded is tried again.
        catch_up_s: seconds that `catch_up` waits at most for what is being loaded.
    """

    def __init__(
        self,
        source: Source,
        *,
        traffic: Traffic,
        lineups: Lineups,
        dealt: Callable[[Deployment], Dealing],
        load: Callable[[Digest], Awaitable[Serving]],
        kill_file: Path | None,
        now: Callable[[], datetime],
        poll_s: float,
        again_s: float = 30.0,
        catch_up_s: float = CATCH_UP_S,
    ) -> None:
        self._source, self._traffic, self._lineups = source, traffic, lineups
        self._dealt, self._load, self._kill_file = dealt, load, kill_file
        self._now, self._poll_s, self._again_s, self._catch_up_s = now, poll_s, again_s, catch_up_s
        # Of its own: other blocking work must not hold this up.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._stable: Rollout | None = None
        self.lacks_stable = False
        self._canary: Digest | None = None
        self._loading: tuple[Digest, asyncio.Task[None]] | None = None
        self._tried, self._failed, self._lacks = asyncio.Event(), False, False
        self._beaten: tuple[Digest | None, float] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self.sight = Sight(None, None)

    @property
    def loaded(self) -> Digest | None:
        """What could be given to the canary's clients now."""
        return self._canary

    async def catch_up(self) -> None:
        """Look once, and wait for what is deployed to be loaded, or to have failed.

        For a replica that starts while a rollout goes on: its clients would fall back until then, which would
        seem to be the canary's fault. A registry that hangs keeps it for `catch_up_s`, and no longer.
        """
        end = asyncio.get_running_loop().time() + self._catch_up_s
        await self.look()
        # What is stable first, and then the canary. One that cannot be loaded holds nothing up.
        while self._lacks and not self._failed and self.sight.why is None:
            if self._loading is not None and not self._loading[1].done():
                self._tried.clear()
                try:
                    async with asyncio.timeout_at(end):
                        await self._tried.wait()
                except TimeoutError:
                    LOGGER.warning("rollouts: serving without what is still being loaded")
                    return
            await self.look()

    async def follow(self) -> None:
        """Follow the store, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_s)

    async def watch(self) -> None:
        """Follow the kill file, until cancelled: apart from the store, which may be what is broken."""
        while self._kill_file is not None:
            there = await asyncio.to_thread(self._kill_file.exists)
            (self._traffic.stopped.add if there else self._traffic.stopped.discard)("the kill file")
            await asyncio.sleep(self._poll_s)

    async def close(self) -> None:
        """Stop loading, and let go of the canary."""
        if self._loading is not None:
            self._loading[1].cancel()
            await asyncio.gather(self._loading[1], return_exceptions=True)
        self._release()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        # Whoever is at the store brings its connection back first.
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def look(self) -> None:
        """Look at the store once, and do what it says."""
        loop = asyncio.get_running_loop()
        try:
            self._apply(await loop.run_in_executor(self._thread, self._deployment))
            if self._beaten != (beaten := (self._canary, loop.time() // BEAT_S)):
                await loop.run_in_executor(self._thread, self._source.beat, self._canary)
                self._beaten = beaten
        except Exception as error:  # noqa: BLE001 -- whatever it was, nobody else would look again
            why = str(error) if isinstance(error, StoreError) else repr(error)
            if self.sight.why is None:
                LOGGER.warning("rollouts: the store is lost", extra={"fields": {"detail": why}})
            self.lost(why)
        else:
            self.sight = Sight(self._now(), None)

    def _deployment(self) -> Deployment:
        deployment = self._source.deployment()
        # A salt's order takes long enough to be made here, and not by the first request that needs it.
        self._dealt(deployment).split.arm_of(0)
        return deployment

    def lost(self, why: str) -> None:
        """Note that the store is out of reach."""
        self.sight = Sight(self.sight.since, why)

    def _apply(self, deployment: Deployment) -> None:
        latest, promoted = deployment.latest, deployment.promoted
        if promoted is not None and promoted != self._stable and self._promote(promoted):
            self._stable = promoted
        wanted = latest.checkpoint if latest is not None and latest.is_live else None
        if self._stable == promoted and wanted != self._canary:
            self._release()
            if wanted is not None and self._stable is not None and wanted == self._stable.checkpoint:
                # The next launch of what is stable already, to further stages: one engine for both.
                self._lineups.canary, self._canary = self._lineups.stable, wanted
            elif wanted is not None:
                self._begin_to_load(wanted)
        self.lacks_stable = self._stable != promoted
        self._lacks = self.lacks_stable or self._canary != wanted
        # What is promoted and not loaded here yet is not dealt here yet.
        self._traffic.dealing = self._dealt(replace(deployment, promoted=self._stable))
        if deployment.killed:  # from here on the store says when it is over, whoever is asked to end it
            self._traffic.stopped.discard(ASKED)

    def _promote(self, promoted: Rollout) -> bool:
        """Have the stable lineup switch to what was promoted, if it is loaded; else load it."""
        if self._stable is not None and self._stable.checkpoint == promoted.checkpoint:
            return True  # to further stages
        if self._canary != promoted.checkpoint or self._lineups.canary is None:
            self._begin_to_load(promoted.checkpoint)
            return False
        stable, canary = self._lineups.stable, self._lineups.canary
        self._lineups.canary = self._canary = None
        old = stable.current
        stable.switch(canary.current)
        self._retire(stable, old)
        return True

    def _begin_to_load(self, digest: Digest) -> None:
        if self._loading is not None:
            if self._loading[0] == digest and not self._loading[1].done():
                return
            self._loading[1].cancel()
        self._loading = digest, asyncio.create_task(self._load_canary(digest))

    async def _load_canary(self, digest: Digest) -> None:
        try:
            serving = await self._load(digest)
        except Exception as error:  # noqa: BLE001 -- whatever it was, it is told, and tried again later
            detail = f"{digest[:12]}: {error if isinstance(error, CorewriteError) else repr(error)}"
            LOGGER.error("rollouts: not loaded", extra={"fields": {"detail": detail}})
            self._failed = True
            self._tried.set()
            await asyncio.sleep(self._again_s)  # the next look after it finds this done, and tries again
            return
        self._lineups.canary, self._canary = Lineup(serving), digest
        self._tried.set()

    def _release(self) -> None:
        lineup, self._lineups.canary, self._canary = self._lineups.canary, None, None
        if lineup is not None and lineup is not self._lineups.stable:
            self._retire(lineup, lineup.current)

    def _retire(self, lineup: Lineup, serving: Serving) -> None:
        async def work() -> None:
            await lineup.idle(serving)
            await serving.engine.close()

        task = asyncio.create_task(work())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
