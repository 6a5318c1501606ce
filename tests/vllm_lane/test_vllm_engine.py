from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from beams import assert_beams_are_the_embedded_engines

from app.contracts.prompt import render
from app.engines.base import GenerationRequest
from app.engines.breaker import Breaker
from app.engines.proof import prove
from app.engines.supervised import SupervisedEngine
from app.engines.vllm import VllmEngine, mapped
from app.errors import EngineError, EngineFailedError, EngineUnavailableError, InputTooLongError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint

CHECKPOINT = load_checkpoint(DEFAULT_CHECKPOINT)
QUERIES = ("truck hopper", "registerd nurse", "bluetoth headphones", "laptop", "er doctor", "code monkey")
EAGER = {"dtype": "float32", "enforce_eager": True}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def make_engine(folder: Path = DEFAULT_CHECKPOINT, **arguments: Any) -> VllmEngine:
    digest = CHECKPOINT.weights_digest
    return VllmEngine(folder, weights_digest=digest, arguments=EAGER | arguments)


@pytest.fixture(scope="module")
def run() -> Any:
    """One event loop for the module: an AsyncLLM belongs to the loop it first answered on."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def engine(run: Run) -> Any:
    engine = make_engine()
    run(engine.start())
    yield engine
    run(engine.close())


def test_greedy_writes_the_golden_tokens(run: Run, engine: VllmEngine) -> None:
    async def golden(prompt: str) -> tuple[int, ...]:
        request = GenerationRequest(prompt=prompt, mode="greedy", max_tokens=24)
        generation = await engine.generate(request)
        assert generation.weights_digest == CHECKPOINT.weights_digest
        return generation.completions[0].token_ids

    for prompt in CHECKPOINT.manifest.golden:
        assert run(golden(prompt.prompt)) == prompt.token_ids


def test_its_beams_are_the_embedded_engines(run: Run, engine: VllmEngine) -> None:
    run(assert_beams_are_the_embedded_engines(engine, QUERIES))


def test_sampling_is_seeded(run: Run, engine: VllmEngine) -> None:
    def sample(seed: int) -> Any:
        request = GenerationRequest(
            prompt=render("code monkey"), mode="sample", num_completions=6, temperature=1.5, seed=seed
        )
        return run(engine.generate(request)).completions

    first = sample(1)
    assert len(first) == 6
    assert [c.token_ids for c in first] == [c.token_ids for c in sample(1)]
    assert [c.token_ids for c in first] != [c.token_ids for c in sample(2)]
    assert [c.logprob for c in first] == sorted((c.logprob for c in first), reverse=True)


def test_a_cancelled_request_leaves_nothing_behind(run: Run, engine: VllmEngine) -> None:
    async def scenario() -> None:
        request = GenerationRequest(prompt=render("truck hopper"), num_completions=4, max_tokens=200)
        tasks = [asyncio.create_task(engine.generate(request)) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError)
            for end in await asyncio.gather(*tasks, return_exceptions=True)
        )
        for _ in range(1000):  # an abort is a message to another process
            await asyncio.sleep(0.01)
            if engine._llm.get_num_unfinished_requests() == 0:
                return
        pytest.fail("requests are left in vLLM")

    run(scenario())


def test_what_does_not_fit_is_refused(run: Run, engine: VllmEngine) -> None:
    with pytest.raises(InputTooLongError):
        run(engine.generate(GenerationRequest(prompt=render("a b c d " * 100), max_tokens=200)))


def test_an_engine_that_was_not_started_says_so(run: Run) -> None:
    with pytest.raises(EngineUnavailableError, match="not running"):
        run(make_engine().generate(GenerationRequest(prompt="x")))


def test_a_broken_checkpoint_is_refused_at_start(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(DEFAULT_CHECKPOINT, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(EngineUnavailableError, match="broken"):
        run(make_engine(folder).start())
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineUnavailableError, match="tokenizer"):
        run(make_engine(folder).start())


def raised(kind: type[Exception]) -> Exception:
    for arguments in (("x",), (), ("x", "x"), ("x", "x", "x")):
        try:
            return kind(*arguments)
        except TypeError:  # it wants another number of them
            continue
    pytest.fail(f"cannot make a {kind}")


def test_every_exception_of_vllms_is_mapped() -> None:
    from vllm import exceptions  # noqa: PLC0415 -- after the environment is set
    from vllm.v1.engine import exceptions as engine_exceptions  # noqa: PLC0415

    kinds = {
        kind
        for module in (exceptions, engine_exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__.startswith("vllm")
    }
    assert len(kinds) >= 10
    away = set()
    for kind in kinds:
        found = mapped(raised(kind))
        assert isinstance(found, EngineError)
        if isinstance(found, EngineUnavailableError):
            away.add(kind.__name__)
    assert away == {"EngineDeadError", "QueueOverflowError", "MaxQueuedTokensError"}
    assert isinstance(mapped(ValueError("x")), EngineFailedError)
    assert isinstance(mapped(InputTooLongError("x")), InputTooLongError)


def test_a_killed_engine_fails_what_runs_and_is_started_again(run: Run) -> None:
    async def scenario() -> None:
        restarted = asyncio.Event()
        engine = SupervisedEngine(
            CHECKPOINT,
            lambda checkpoint: make_engine(checkpoint.path),
            breaker=Breaker(max_failures=5, open_s=1.0),
            timeout_s=60.0,
            on_restart=restarted.set,
        )
        await engine.start()
        request = GenerationRequest(prompt=render("truck hopper"), num_completions=4)
        before = await engine.generate(request)
        long = GenerationRequest(prompt=render("truck hopper"), num_completions=4, max_tokens=200)
        waiting = [asyncio.create_task(engine.generate(long)) for _ in range(8)]
        await asyncio.sleep(0.05)
        for child in psutil.Process().children(recursive=True):
            if "EngineCore" in " ".join(child.cmdline()) or "VLLM" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
        assert all(isinstance(outcome, EngineError) for outcome in outcomes)
        with pytest.raises(EngineUnavailableError):
            await engine.generate(request)
        await asyncio.wait_for(restarted.wait(), 300)
        after = await engine.generate(request)
        assert [c.token_ids for c in after.completions] == [c.token_ids for c in before.completions]
        await engine.close()

    run(scenario())


def test_the_compiled_mode_is_proven_as_well(run: Run) -> None:
    """As vLLM runs unless told otherwise: torch.compile, which takes a C++ compiler on a CPU."""

    async def scenario() -> None:
        engine = VllmEngine(
            DEFAULT_CHECKPOINT, weights_digest=CHECKPOINT.weights_digest, arguments={"dtype": "float32"}
        )
        await engine.start()
        try:
            config = engine._llm.vllm_config.compilation_config
            assert (config.mode.name, config.backend) == ("DYNAMO_TRACE_ONCE", "inductor")
            await prove(engine, CHECKPOINT.golden, weights_digest=CHECKPOINT.weights_digest)
            await engine.reload(DEFAULT_CHECKPOINT, weights_digest=CHECKPOINT.weights_digest)
            await prove(engine, CHECKPOINT.golden, weights_digest=CHECKPOINT.weights_digest)
        finally:
            await engine.close()

    run(scenario())
