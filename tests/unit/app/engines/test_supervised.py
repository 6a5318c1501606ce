from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from fakes import DIGEST, FakeCheckpoint, FakeEngine

from app.contracts.prompt import render
from app.engines.base import GenerationRequest
from app.engines.breaker import Breaker
from app.engines.supervised import SupervisedEngine
from app.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineFailedError,
    EngineUnavailableError,
    InputTooLongError,
    ProofError,
)

REQUEST = GenerationRequest(prompt=render("rn icu"))


@dataclass
class Factory:
    """Makes engines; the first `deaf` restarts do not start."""

    deaf: int = 0
    why: BaseException = field(default_factory=lambda: EngineUnavailableError("no GPU"))
    made: list[FakeEngine] = field(default_factory=list)

    def __call__(self, _checkpoint: FakeCheckpoint) -> FakeEngine:
        engine = FakeEngine()
        if 0 < len(self.made) <= self.deaf:
            engine.start_error = self.why
        self.made.append(engine)
        return engine


def supervise(
    factory: Callable[[FakeCheckpoint], FakeEngine],
    *,
    max_failures: int = 3,
    timeout_s: float = 5.0,
    **options: object,
) -> SupervisedEngine:
    breaker = Breaker(max_failures=max_failures, open_s=60.0)
    return SupervisedEngine(
        FakeCheckpoint(), factory, breaker=breaker, timeout_s=timeout_s, backoff_s=0.001, **options
    )  # type: ignore[arg-type]


class Panic(BaseException):
    """As libraries in Rust raise: no Exception."""


@pytest.mark.parametrize("why", [EngineUnavailableError("no GPU"), Panic("index out of bounds")])
def test_a_dead_engine_is_replaced_and_the_next_request_answered(why: BaseException) -> None:
    async def scenario() -> None:
        factory, restarts = Factory(2, why), []
        engine = supervise(factory, on_restart=lambda: restarts.append(1))
        await engine.start()
        factory.made[0].error = EngineDeadError("killed")
        with pytest.raises(EngineDeadError):
            await engine.generate(REQUEST)
        with pytest.raises(EngineUnavailableError, match="being restarted"):
            await engine.generate(REQUEST)
        await asyncio.sleep(0.05)
        assert (await engine.generate(REQUEST)).weights_digest == DIGEST
        # Two that did not start, and one that did; every one before it was closed.
        assert [(made.started, made.closed) for made in factory.made] == [(1, 1)] * 3 + [(1, 0)]
        assert restarts == [1]
        await engine.close()
        assert factory.made[-1].closed == 1

    asyncio.run(scenario())


def test_many_requests_of_one_death_restart_once() -> None:
    async def scenario() -> None:
        factory = Factory()
        engine = supervise(factory)
        await engine.start()
        factory.made[0].error = EngineDeadError("killed")
        factory.made[0].gate = asyncio.Event()
        waiting = [asyncio.create_task(engine.generate(REQUEST)) for _ in range(8)]
        await asyncio.sleep(0)
        factory.made[0].gate.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, EngineDeadError) for outcome in outcomes)
        await asyncio.sleep(0.05)
        assert len(factory.made) == 2

    asyncio.run(scenario())


def test_an_engine_that_keeps_failing_is_not_asked() -> None:
    async def scenario() -> None:
        factory = Factory()
        engine = supervise(factory)
        await engine.start()
        factory.made[0].error = EngineFailedError("NaN")
        for _ in range(3):
            with pytest.raises(EngineFailedError):
                await engine.generate(REQUEST)
        with pytest.raises(EngineUnavailableError, match="left alone"):
            await engine.generate(REQUEST)
        assert len(factory.made[0].asked) == 3
        assert len(factory.made) == 1  # it lives: nothing to restart

    asyncio.run(scenario())


def test_a_hanging_engine_counts_as_failing() -> None:
    async def scenario() -> None:
        factory = Factory()
        engine = supervise(factory, max_failures=1, timeout_s=0.01)
        await engine.start()
        factory.made[0].gate = asyncio.Event()
        with pytest.raises(EngineUnavailableError, match="did not answer"):
            await engine.generate(REQUEST)
        assert engine.breaker.state == "open"
        assert factory.made[0].cancelled == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [InputTooLongError("x"), EngineBusyError("full")])
def test_what_is_no_fault_of_the_engine_does_not_trip_the_breaker(error: Exception) -> None:
    async def scenario() -> None:
        factory = Factory()
        engine = supervise(factory, max_failures=1)
        await engine.start()
        factory.made[0].error = error
        for _ in range(5):
            with pytest.raises(type(error)):
                await engine.generate(REQUEST)
        assert engine.breaker.state == "closed"

    asyncio.run(scenario())


def test_a_caller_that_gives_up_does_not_trip_the_breaker() -> None:
    async def scenario() -> None:
        factory = Factory()
        engine = supervise(factory, max_failures=1)
        await engine.start()
        factory.made[0].delay_s = 1.0
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await engine.generate(REQUEST)
        assert engine.breaker.state == "closed"

    asyncio.run(scenario())


def test_a_first_start_that_fails_is_told() -> None:
    async def scenario() -> None:
        engine = supervise(lambda _checkpoint: FakeEngine(start_error=EngineUnavailableError("no GPU")))
        with pytest.raises(EngineUnavailableError, match="no GPU"):
            await engine.start()

    asyncio.run(scenario())


def test_closing_while_it_restarts_ends_the_attempts() -> None:
    async def scenario() -> None:
        factory = Factory(deaf=10**6)
        engine = supervise(factory)
        await engine.start()
        factory.made[0].error = EngineDeadError("killed")
        with pytest.raises(EngineDeadError):
            await engine.generate(REQUEST)
        await asyncio.sleep(0.01)
        await engine.close()
        attempts = len(factory.made)
        await asyncio.sleep(0.01)
        assert len(factory.made) == attempts > 1

    asyncio.run(scenario())


def test_what_comes_back_after_a_pause_is_proven_again_before_it_answers() -> None:
    async def scenario() -> None:
        now, changed, proofs = 0.0, True, []

        async def prove(_engine: FakeEngine, checkpoint: FakeCheckpoint) -> None:
            proofs.append(checkpoint.id)
            if changed and len(proofs) > 1:
                raise ProofError("other tokens")

        factory = Factory()
        engine = supervise(factory, max_failures=1, prove=prove, clock=lambda: now)
        await engine.start()
        factory.made[0].error = EngineFailedError("the fleet is away")
        with pytest.raises(EngineFailedError):
            await engine.generate(REQUEST)
        factory.made[0].error = None  # it is back, and answers with other weights
        for _ in range(3):
            now += 100.0
            with pytest.raises(EngineUnavailableError, match="not what went away"):
                await engine.generate(REQUEST)
            assert engine.breaker.state == "open"
        now, changed = now + 100.0, False
        assert (await engine.generate(REQUEST)).weights_digest == DIGEST
        assert engine.breaker.state == "closed"
        proven = len(proofs)
        await engine.generate(REQUEST)
        assert len(proofs) == proven  # only then, not for each request

    asyncio.run(scenario())
