"""The original-first contract: whatever the engine does, the answer is in time and the query untouched."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Never

import pytest
from fakes import DIGEST, FakeCalibration, FakeCheckpoint, FakeEngine, completion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contracts.reasons import Drop, Reason
from app.engines.base import Completion
from app.errors import (
    DrainingError,
    EngineDeadError,
    EngineFailedError,
    EngineUnavailableError,
    InputTooLongError,
    OverloadedError,
)
from app.main import create_app
from app.rewrite.answer import Query
from app.rewrite.deadline import deadline_of
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI


def run(scenario: Any, engine: FakeEngine = None, checkpoint: Any = None, **options: Any) -> Any:
    """Run `scenario(ask, app, engine)` inside the app's lifespan; `ask` is the request path."""
    engine = engine or FakeEngine()

    async def inside() -> Any:
        app = create_app(Settings(**options), engine=engine, checkpoint=checkpoint or FakeCheckpoint())

        def ask(text: str = "rn icu", *, budget_ms: int = 2000, **fields: Any) -> Any:
            query = Query(text=text, query_id="q", **fields)
            deadline = deadline_of(time.monotonic(), body_ms=None, header_ms=None, default_ms=budget_ms)
            return app.state.service.rewrite(query, deadline)

        async with app.router.lifespan_context(app):
            return await scenario(ask, app, engine)

    return asyncio.run(inside())


def metric(app: FastAPI, name: str, **labels: str) -> float:
    return app.state.metrics.registry.get_sample_value(name, labels) or 0.0


def test_one_entry_serves_any_number_of_rewrites() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        first, second = await ask(num_rewrites=1), await ask(num_rewrites=4)
        assert [len(first.rewrites), len(second.rewrites)] == [1, 4]
        assert [first.cache, second.cache] == ["miss", "hit"]
        assert [request.num_completions for request in engine.asked] == [4]
        assert second.rewrites[0] == first.rewrites[0]
        assert metric(app, "corewrite_cache_requests_total", result="hit") == 1
        assert metric(app, "corewrite_engine_tokens_total", kind="completion") == 12
        assert metric(app, "corewrite_requests_total", outcome="rewritten", reason="none") == 2

    run(scenario)


def test_locale_and_context_have_their_own_entries_and_case_of_locale_does_not() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        await ask(locale="en-GB")
        await ask(locale="EN-gb")
        await ask(locale="de")
        await ask()
        assert len(engine.asked) == 3

    run(scenario)


def test_a_late_generation_warms_the_cache() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        late = await ask(budget_ms=10)
        assert (late.reason, late.rewrites, late.query.text) == (Reason.DEADLINE, (), "rn icu")
        assert app.state.metrics.registry.get_sample_value("corewrite_background_generations") == 1
        await asyncio.sleep(0.3)
        assert (await ask()).cache == "hit"
        assert len(engine.asked) == 1

    run(scenario, FakeEngine(delay_s=0.05))


def test_beyond_the_background_bound_generations_are_cancelled() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        answers = await asyncio.gather(*(ask(f"query {word}", budget_ms=20) for word in "abcd"))
        assert {answer.reason for answer in answers} == {Reason.DEADLINE}
        await asyncio.sleep(0)
        assert engine.cancelled == 3

    run(scenario, FakeEngine(delay_s=5), max_background=1)


def test_identical_queries_in_flight_are_generated_once() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        answers = await asyncio.gather(*(ask() for _ in range(20)))
        assert len(engine.asked) == 1
        assert sorted(answer.cache for answer in answers) == ["miss", *["shared"] * 19]
        assert metric(app, "corewrite_singleflight_shared_total") == 19

    run(scenario, FakeEngine(delay_s=0.02))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineFailedError("x"), Reason.ENGINE_ERROR),
        (EngineUnavailableError("x"), Reason.ENGINE_UNAVAILABLE),
        (InputTooLongError("x"), Reason.INPUT_TOO_LONG),
        (RuntimeError("a bug"), Reason.ENGINE_ERROR),
        (TimeoutError("its own"), Reason.ENGINE_UNAVAILABLE),
        (asyncio.CancelledError(), Reason.ENGINE_UNAVAILABLE),
    ],
)
def test_engine_errors_become_reasons_and_are_not_remembered(error: Any, reason: Reason) -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        answer = await ask()
        assert (answer.reason, answer.rewrites) == (reason, ())
        assert metric(app, "corewrite_requests_total", outcome="degraded", reason=reason) == 1
        engine.error = None
        assert (await ask()).reason is None

    run(scenario, FakeEngine(error=error))


def test_a_hung_engine_is_given_up() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        answer = await ask()
        assert answer.reason is Reason.ENGINE_UNAVAILABLE
        assert engine.cancelled == 1

    run(scenario, FakeEngine(delay_s=60), generation_timeout_s=0.02)


def test_other_weights_than_announced_are_never_shown() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app, engine
        answer = await ask()
        assert (answer.reason, answer.weights_digest) == (Reason.ENGINE_ERROR, DIGEST)

    run(scenario, FakeEngine(answers_with="0" * 64))


def test_a_failing_calibration_degrades() -> None:
    def broken(_place: int) -> Never:
        raise ZeroDivisionError

    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app, engine
        assert (await ask()).reason is Reason.ENGINE_ERROR

    run(scenario, checkpoint=FakeCheckpoint(calibration=FakeCalibration(values=broken)))


def test_low_confidence_and_guard_are_remembered_too() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        first, second = await ask(), await ask()
        assert (first.reason, second.reason, second.cache) == (
            Reason.LOW_CONFIDENCE,
            Reason.LOW_CONFIDENCE,
            "hit",
        )
        lost = await ask("rn 12")
        assert lost.reason is Reason.GUARD
        assert lost.drops == {Drop.LOST_NUMBER: 1}
        assert metric(app, "corewrite_guard_drops_total", drop="lost_number") == 1
        assert len(engine.asked) == 2

    run(scenario, FakeEngine(completions=lambda _: [completion("registered nurse")]), min_confidence=0.95)


def test_disabled_asks_nobody() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        assert (await ask()).reason is Reason.DISABLED
        assert engine.asked == []

    run(scenario, enabled=False)


@pytest.mark.parametrize("text", ["\ufdfa" * 100, "<|" * 171 + " red shoes", "\uff1c\uff5c" * 171 + " 42"])
def test_a_query_that_unfolds_beyond_what_the_model_reads(text: str) -> None:
    """Two that begin alike would be one to the model, and to the cache."""

    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        assert (await ask("a <| b")).reason is None
        engine.asked.clear()
        assert (await ask(text)).reason is Reason.INPUT_TOO_LONG
        assert engine.asked == []

    run(scenario)


def test_overload_is_shed_and_leaves_nothing_behind() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        results = await asyncio.gather(*(ask(f"query {n:b}") for n in range(8)), return_exceptions=True)
        assert sum(isinstance(result, OverloadedError) for result in results) == 6
        assert engine.peak == 1
        assert metric(app, "corewrite_shed_total", cause="queue_full") == 6
        assert metric(app, "corewrite_inflight_requests", gate="rewrite") == 0

    run(
        scenario,
        FakeEngine(delay_s=0.02),
        max_inflight=1,
        max_waiting=1,
        max_wait_ms=1000,
        batch_concurrency=1,
    )


def test_a_budget_spent_in_the_queue_is_the_deadline_not_an_error() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        first = asyncio.create_task(ask("one"))
        await asyncio.sleep(0)
        assert (await ask("two", budget_ms=10)).reason is Reason.DEADLINE
        assert (await first).reason is None
        assert len(engine.asked) == 1

    run(scenario, FakeEngine(delay_s=0.3), max_inflight=1, max_wait_ms=1000, batch_concurrency=1)


def test_a_cancelled_client_does_not_cancel_what_others_wait_for() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        leader, follower = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        leader.cancel()
        assert (await follower).reason is None
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert engine.cancelled == 0
        assert metric(app, "corewrite_inflight_requests", gate="rewrite") == 0

    run(scenario, FakeEngine(delay_s=0.03))


def test_shutdown_closes_engine_and_flights() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> Any:
        del app
        assert (await ask(budget_ms=10)).reason is Reason.DEADLINE
        return engine

    engine = run(scenario, FakeEngine(delay_s=60))
    assert (engine.started, engine.closed, engine.cancelled) == (1, 1, 1)


def test_draining_refuses() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del engine
        assert await app.state.lifecycle.drain()
        with pytest.raises(DrainingError):
            await ask()

    run(scenario)


ANY_TEXT = st.text(max_size=40)
GARBAGE = st.lists(
    st.builds(
        Completion,
        text=ANY_TEXT | st.none(),
        token_ids=st.just((1,)),
        logprob=st.floats(),
        finish_reason=st.sampled_from(["stop", "length", "strange"]),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=ANY_TEXT.filter(str.strip),
    garbage=GARBAGE,
    error=st.none() | st.sampled_from([RuntimeError("x"), EngineFailedError("x"), asyncio.CancelledError()]),
    delay_s=st.sampled_from([0, 0, 0.5]),
    confidence=st.floats(),
)
def test_the_original_comes_back_whatever_the_engine_does(
    text: str, garbage: Any, error: Any, delay_s: float, confidence: float
) -> None:
    engine = FakeEngine(completions=lambda _: garbage, error=error, delay_s=delay_s)
    checkpoint = FakeCheckpoint(calibration=FakeCalibration(values=lambda _: confidence))

    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> Any:
        del app, engine
        return await ask(text, budget_ms=20, num_rewrites=4)

    answer = run(scenario, engine, checkpoint)
    assert answer.query.text == text
    assert (answer.reason is None) == bool(answer.rewrites)
    for rewrite in answer.rewrites:
        assert rewrite.text != text
        assert rewrite.logprob <= 0
        assert 0.5 <= rewrite.confidence <= 1
    assert answer.timings.total_s < 0.4


def test_nearline_never_waits_and_warms_the_cache() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        engine.gate = asyncio.Event()
        first, second = await ask(mode="nearline"), await ask(mode="nearline")
        assert (first.reason, first.cache, first.rewrites) == (Reason.NEARLINE, "miss", ())
        assert second.reason is Reason.NEARLINE
        assert metric(app, "corewrite_nearline_total", result="queued") == 1
        assert metric(app, "corewrite_nearline_total", result="known") == 1
        engine.gate.set()
        await asyncio.sleep(0.05)
        warm = await ask(mode="nearline")
        assert (warm.reason, warm.cache, len(warm.rewrites)) == (None, "hit", 1)
        assert len(engine.asked) == 1

    run(scenario)


def test_who_waits_joins_a_nearline_generation() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        await ask(mode="nearline")
        await asyncio.sleep(0)
        assert (await ask(mode="online")).cache == "shared"
        assert len(engine.asked) == 1

    run(scenario, FakeEngine(delay_s=0.05))


def test_nearline_needs_no_place_but_is_refused_while_draining() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        engine.gate = asyncio.Event()
        waiting = asyncio.create_task(ask("a"))
        await asyncio.sleep(0.01)
        assert (await ask("b", mode="nearline")).reason is Reason.NEARLINE
        assert (await ask("c", mode="auto")).reason is Reason.NEARLINE  # no place at once
        engine.gate.set()
        await waiting
        assert (await ask("d", mode="auto")).reason is None
        app.state.service._admission.drain()
        with pytest.raises(DrainingError):
            await ask("e", mode="nearline")

    run(scenario, max_inflight=1, batch_concurrency=1)


def test_auto_does_not_wait_where_the_time_left_is_not_enough() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app
        assert (await ask("a", mode="auto")).reason is None  # nothing is known yet: it waits
        hopeless = await ask("b", mode="auto", budget_ms=5)
        assert hopeless.reason is Reason.NEARLINE
        assert hopeless.timings.engine_s == 0
        await asyncio.sleep(0.3)
        assert (await ask("b", mode="auto", budget_ms=5)).cache == "hit"
        assert (await ask("c", mode="auto")).reason is None
        assert len(engine.asked) == 3

    run(scenario, FakeEngine(delay_s=0.05))


def test_the_mode_of_the_request_beats_the_servers() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        del app, engine
        assert (await ask("a")).reason is Reason.NEARLINE
        assert (await ask("b", mode="online")).reason is None

    run(scenario, mode="nearline")


def test_a_sick_engine_costs_the_original_alone_and_is_left_alone() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        reasons = [(await ask(f"query {word}")).reason for word in "abcdef"]
        assert reasons == [Reason.ENGINE_ERROR] * 2 + [Reason.ENGINE_UNAVAILABLE] * 4
        assert len(engine.asked) == 2
        assert metric(app, "corewrite_engine_breaker", state="open") == 1
        engine.error = None
        await asyncio.sleep(0.06)
        assert (await ask("again")).reason is None
        assert metric(app, "corewrite_engine_breaker", state="closed") == 1

    run(scenario, FakeEngine(error=EngineFailedError("x")), breaker_max_failures=2, breaker_open_s=0.05)


def test_a_dead_engine_is_started_again() -> None:
    async def scenario(ask: Callable[..., Any], app: FastAPI, engine: FakeEngine) -> None:
        engine.error = EngineDeadError("killed")
        assert (await ask("a")).reason is Reason.ENGINE_UNAVAILABLE
        engine.error = None
        await asyncio.sleep(0.01)
        assert (await ask("b")).reason is None
        assert (engine.started, engine.closed) == (2, 1)
        assert metric(app, "corewrite_engine_restarts_total") == 1

    run(scenario)
