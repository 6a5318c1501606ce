"""An engine that is started again when it dies, and left alone while it keeps failing.

What a client sees is the same in every case: `engine_unavailable`, and the original query. Requests that are
taken back by their callers, that do not fit, or that a full queue refuses say nothing about the engine's
health and count neither way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from app.engines.base import Reloadable
from app.engines.breaker import Breaker
from app.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineFailedError,
    EngineUnavailableError,
    InputTooLongError,
    ProofError,
)
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.engines.base import Engine, Generation, GenerationRequest
    from app.registry.served import ServedCheckpoint


async def believe(_engine: Engine, _checkpoint: ServedCheckpoint) -> None:
    """The proof that asks for nothing."""


class SupervisedEngine:
    """An `Engine` over the ones that `make` makes, one at a time.

    Args:
        checkpoint: what it computes.
        make: makes an engine for a checkpoint, not started. It is called again for each restart.
        prove: raises where a started engine does not compute that checkpoint: it is not used then.
        breaker: when to stop asking; see `Breaker`.
        timeout_s: seconds after which a request is cancelled and counts as a failure: the engine hangs.
        backoff_s: seconds before the second attempt to restart; the first is made at once, and each later
            one waits twice as long as the last, up to `max_backoff_s`.
        max_backoff_s: the longest wait between attempts.
        reload_timeout_s: seconds after which a reload that is not proven has failed: requests wait that long.
        on_restart: called after each restart that worked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        checkpoint: ServedCheckpoint,
        make: Callable[[ServedCheckpoint], Engine],
        *,
        breaker: Breaker,
        prove: Callable[[Engine, ServedCheckpoint], Awaitable[None]] = believe,
        timeout_s: float,
        backoff_s: float = 1.0,
        max_backoff_s: float = 60.0,
        reload_timeout_s: float = 60.0,
        on_restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoint = checkpoint
        self._make, self._prove = make, prove
        self._breaker = breaker
        self._timeout_s = timeout_s
        self._backoff_s, self._max_backoff_s = backoff_s, max_backoff_s
        self._reload_timeout_s = reload_timeout_s
        self._on_restart = on_restart
        self._clock = clock
        self._restarting: asyncio.Task[None] | None = None
        self._closed = False
        self.inner = make(checkpoint)

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""
        return self.inner.weights_digest

    @property
    def breaker(self) -> Breaker:
        """For metrics."""
        return self._breaker

    async def start(self) -> None:
        """Start the first engine. What it raises is raised: a service that cannot start should say so."""
        await self.inner.start()
        await self._prove(self.inner, self._checkpoint)

    async def reload(self, checkpoint: ServedCheckpoint) -> None:
        """Put the weights of `checkpoint` into the running engine, and prove it; else the old ones back.

        The caller sees to it that no request is under way, and that none comes before this has returned or
        raised. Where even the old ones cannot be proven, the engine is started again with them.

        Raises:
            EngineError: this engine cannot change weights in place, or failed to.
            ProofError: it said it did, and did not.
        """
        if self._restarting is not None:
            raise EngineUnavailableError("the engine is being restarted")
        if not isinstance(self.inner, Reloadable):
            raise EngineFailedError(f"{type(self.inner).__name__} cannot change weights in place")
        try:
            await self._put(self.inner, checkpoint)
        except BaseException:
            try:
                await self._put(self.inner, self._checkpoint)
            except Exception as error:  # noqa: BLE001 -- whatever holds it up, a new engine is the answer
                self._restart(error)
            raise
        self._checkpoint = checkpoint

    async def _put(self, inner: Reloadable, checkpoint: ServedCheckpoint) -> None:
        try:
            async with asyncio.timeout(self._reload_timeout_s):
                await inner.reload(checkpoint.path, weights_digest=checkpoint.weights_digest)
                await self._prove(self.inner, checkpoint)
        except TimeoutError as error:
            raise EngineUnavailableError(f"no proof within {self._reload_timeout_s:g} s") from error

    async def close(self) -> None:
        """Stop, and restart no more."""
        self._closed = True
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
        await self.inner.close()

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt; see `Engine.generate`.

        Raises:
            EngineUnavailableError: the breaker is open, an engine is being restarted, or this one hangs.
        """
        if self._restarting is not None:
            raise EngineUnavailableError("the engine is being restarted")
        given = self._breaker.admit(self._clock())
        if given is None:
            raise EngineUnavailableError("the engine kept failing and is left alone for a while")
        probing = self._breaker.state != "closed"
        try:
            async with asyncio.timeout(self._timeout_s):
                generation = await self.inner.generate(request)
                if probing:  # a fleet that was away may have come back with other weights
                    await self._prove(self.inner, self._checkpoint)
        except TimeoutError as error:
            self._breaker.failed(given, self._clock())
            raise EngineUnavailableError("the engine did not answer at all") from error
        except ProofError as error:
            self._breaker.failed(given, self._clock())
            raise EngineUnavailableError(f"what came back is not what went away: {error}") from error
        except (InputTooLongError, EngineBusyError, asyncio.CancelledError):
            self._breaker.gave_up(given)
            raise
        except Exception as error:
            self._breaker.failed(given, self._clock())
            if isinstance(error, EngineDeadError):
                self._restart(error)
            raise
        self._breaker.succeeded(given)
        return generation

    def _restart(self, why: Exception) -> None:
        if self._restarting is None and not self._closed:
            LOGGER.error("engine died", extra={"fields": {"detail": str(why)}})
            self._restarting = asyncio.create_task(self._until_started())

    async def _until_started(self) -> None:
        wait_s = self._backoff_s
        while True:
            with contextlib.suppress(Exception):  # it is dead: whatever is left of it may fail to go
                await self.inner.close()
            try:
                self.inner = self._make(self._checkpoint)
                await self.inner.start()
                await self._prove(self.inner, self._checkpoint)
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                raise
            # Whatever it is, a library's panic too, which is no Exception, the next attempt may find it gone.
            except BaseException as error:  # noqa: BLE001 -- as above
                LOGGER.error("engine restart failed", extra={"fields": {"detail": str(error)}})
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._max_backoff_s)
            else:
                break
        self._restarting = None
        self._breaker.reset()
        self._on_restart()
        LOGGER.warning("engine restarted")
