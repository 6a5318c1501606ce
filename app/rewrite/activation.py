"""Another checkpoint in place of the one that serves, without a dropped or a mixed answer.

    beside     load it into an engine of its own, prove it, switch, let the old one finish, close it
    in_place   keep new generations waiting, let those under way finish, change the weights of the engine
               that is there, prove them, go on; where that fails, the old weights back, and then beside

Proof is of three kinds: the digests of all files, golden prompts answered token by token as the trainer
recorded them, and at least one of these on which the incumbent differs, for without it an engine that kept
the old weights would pass. Whatever fails, the incumbent serves on.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.engines.memory import trim
from app.engines.proof import tells_apart
from app.errors import ActivationError, CheckpointError, EngineError, UnknownCheckpointError
from app.rewrite.lineup import Serving, started
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engines.supervised import SupervisedEngine
    from app.registry.served import ServedCheckpoint
    from app.rewrite.lineup import Lineup

Mechanism = Literal["beside", "in_place"]
Outcome = Literal["activated", "already_active", "refused"]

_SILENT = "the incumbent does not answer, so that a change of its weights could not be told"
_FAILURES = (CheckpointError, EngineError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Activation:
    """What became of a request to activate.

    `mechanism` is the one that did it; `fell_back` says why it was not the one asked for. `golden` prompts
    were proven; `told_apart`: some of them is answered otherwise by the one before (None: it did not answer).
    `switched_s` is the seconds until it answered, `total_s` until the one before had left memory.
    """

    checkpoint_id: str
    weights_digest: str
    outcome: Outcome
    mechanism: Mechanism
    golden: int = 0
    told_apart: bool | None = None
    fell_back: str | None = None
    switched_s: float = 0.0
    total_s: float = 0.0


class Activator:
    """Activates checkpoints, one at a time.

    Args:
        lineup: what it changes.
        load: reads and verifies a checkpoint by its id; raises CheckpointError. It may block.
        engine_for: makes a supervised engine for a checkpoint, not started; its `start` proves it.
        on_outcome: called with the mechanism and what became of each attempt.
        timeout_s: seconds that loading and proof may take.
    """

    def __init__(
        self,
        lineup: Lineup,
        *,
        load: Callable[[str], ServedCheckpoint],
        engine_for: Callable[[ServedCheckpoint], SupervisedEngine],
        on_outcome: Callable[[Mechanism, Outcome], None] = lambda _mechanism, _outcome: None,
        timeout_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lineup = lineup
        self._load = load
        self._engine_for = engine_for
        self._on_outcome = on_outcome
        self._timeout_s = timeout_s
        self._clock = clock
        self._running: asyncio.Task[Activation] | None = None

    async def activate(self, checkpoint_id: str, mechanism: Mechanism) -> Activation:
        """Activate a checkpoint; returns when it serves and the one before is gone.

        It goes on when the caller is cancelled: half an activation is no state to stop in.

        Raises:
            ActivationError: it was not activated, or another activation is under way.
            UnknownCheckpointError: there is none of that id.
        """
        if self._running is not None and not self._running.done():
            raise ActivationError("another activation is under way; try again when it has ended")
        self._running = asyncio.create_task(self._activate(checkpoint_id, mechanism))
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Give up what is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _activate(self, checkpoint_id: str, asked: Mechanism) -> Activation:
        began = self._clock()
        incumbent, fell_back, mechanism = self._lineup.current, None, asked
        try:
            async with asyncio.timeout(self._timeout_s):
                checkpoint = await asyncio.to_thread(self._load, checkpoint_id)
                if checkpoint.weights_digest == incumbent.checkpoint.weights_digest:
                    return Activation(checkpoint.id, checkpoint.weights_digest, "already_active", asked)
                told_apart = await self._tells(checkpoint, incumbent)
                if mechanism == "in_place":
                    known = told_apart is not None
                    fell_back = await self._in_place(checkpoint, incumbent) if known else _SILENT
                if mechanism == "beside" or fell_back:
                    mechanism = "beside"
                    await self._beside(checkpoint)
        except UnknownCheckpointError:
            raise
        except _FAILURES as error:
            self._on_outcome(mechanism, "refused")
            why = str(error) or f"no proof within {self._timeout_s:g} s"
            LOGGER.error("activation refused", extra={"fields": {"detail": f"{checkpoint_id}: {why}"}})
            raise ActivationError(f"{incumbent.checkpoint.id} serves on: {why}") from error
        switched_s = self._clock() - began
        if mechanism == "beside":
            await self._lineup.idle(incumbent)
            await incumbent.engine.close()
        await asyncio.to_thread(trim)
        self._on_outcome(mechanism, "activated")
        LOGGER.warning("checkpoint activated", extra={"fields": {"detail": f"{checkpoint.id}, {mechanism}"}})
        return Activation(
            checkpoint.id,
            checkpoint.weights_digest,
            "activated",
            mechanism,
            golden=len(checkpoint.golden),
            told_apart=told_apart,
            fell_back=fell_back,
            switched_s=switched_s,
            total_s=self._clock() - began,
        )

    async def _tells(self, checkpoint: ServedCheckpoint, incumbent: Serving) -> bool | None:
        """Whether a golden prompt tells it from the incumbent; None where that does not answer.

        One has to, unless both compute the same model.
        """
        try:
            told_apart = await tells_apart(incumbent.engine, checkpoint.golden)
        except EngineError as error:
            LOGGER.warning("incumbent cannot be compared", extra={"fields": {"detail": str(error)}})
            return None
        if not told_apart and checkpoint.model_digest != incumbent.checkpoint.model_digest:
            raise CheckpointError(
                f"none of its {len(checkpoint.golden)} golden prompts tells {checkpoint.id} from "
                f"{incumbent.checkpoint.id}, so loading it could not be proven; publish it with some that do"
            )
        return told_apart

    async def _in_place(self, checkpoint: ServedCheckpoint, incumbent: Serving) -> str | None:
        """Change the weights of the incumbent's engine; why it did not work, or None."""
        engine = incumbent.engine
        with self._lineup.paused():
            await self._lineup.idle(incumbent)
            try:
                await engine.reload(checkpoint)
            except (CheckpointError, EngineError) as error:
                self._on_outcome("in_place", "refused")
                LOGGER.warning("in-place swap failed", extra={"fields": {"detail": str(error)}})
                return str(error)
            self._lineup.switch(Serving(checkpoint, engine))
        return None

    async def _beside(self, checkpoint: ServedCheckpoint) -> None:
        self._lineup.switch(await started(checkpoint, self._engine_for))
