"""starting → ready → draining: what /readyz says, and how the process takes its leave.

On a stop signal /readyz turns 503 at once. Requests are still served for `grace_s`, until load balancers have
noticed; then new ones are refused with 503 and those in flight may finish within `timeout_s`. Only then do
the listening sockets close.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from app.errors import CorewriteError
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fastapi import FastAPI

    from app.rewrite.admission import Admission
    from app.rewrite.lineup import Lineup

Status = Literal["starting", "ready", "draining"]


class Starts(Protocol):
    """What has a beginning and an end of its own."""

    async def start(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End."""


class Lifecycle:
    """The state of one app; `admissions` are the gates that close when it drains."""

    def __init__(self, admissions: Sequence[Admission], *, grace_s: float, timeout_s: float) -> None:
        self._admissions = admissions
        self._grace_s = grace_s
        self._timeout_s = timeout_s
        self.status: Status = "starting"

    async def drain(self) -> bool:
        """Take leave; True when everything in flight was answered in time."""
        self.status = "draining"
        await asyncio.sleep(self._grace_s)
        for admission in self._admissions:
            admission.drain()
        try:
            async with asyncio.timeout(self._timeout_s):
                for admission in self._admissions:
                    await admission.wait_idle()
        except TimeoutError:
            left = sum(admission.inflight for admission in self._admissions)
            LOGGER.warning(
                "drain timed out", extra={"fields": {"detail": f"{left} requests were not finished"}}
            )
            return False
        return True


def lifespan(
    lineup: Lineup,
    closing: Sequence[Callable[[], Awaitable[object]]],
    lifecycle: Lifecycle,
    *,
    starting: Sequence[Starts] = (),
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Start on the way in; on the way out run the clean-ups pushed so far, last first.

    `closing` are those of what needs no start; `starting` is started once the engine is.
    """

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async def close_engine() -> None:
            await lineup.current.engine.close()  # another may serve by then

        clean_ups: list[Callable[[], Awaitable[object]]] = [close_engine]
        try:
            await lineup.current.engine.start()
            clean_ups.extend(closing)
            for part in starting:
                await part.start()
                clean_ups.append(part.close)
            if lifecycle.status == "starting":  # and not told to stop meanwhile
                lifecycle.status = "ready"
            LOGGER.info("ready")
            yield
        except CorewriteError as error:
            app.state.startup_error = error
            raise
        finally:
            lifecycle.status = "draining"
            for clean_up in reversed(clean_ups):
                await clean_up()
            LOGGER.info("stopped")

    return run
