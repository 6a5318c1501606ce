"""Swaps on a real server over real vLLM: in place and beside, under load, its engine killed under way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import free_port

from app.engines.breaker import Breaker
from app.engines.proof import prove
from app.engines.supervised import SupervisedEngine
from app.engines.vllm import VllmEngine
from app.errors import ProofError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from loadtest.history import Violation, violations
from loadtest.sibling import make_sibling
from loadtest.swaps import Drill, run, serve, until_ready

QUERIES = ("rn icu nights", "truck hopper", "registerd nurse", "code monkey", "er doctor", "line cook")
EAGER = {"dtype": "float32", "enforce_eager": True}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    folder = tmp_path_factory.mktemp("checkpoints")
    default = load_checkpoint(DEFAULT_CHECKPOINT)
    return [make_sibling(default, folder / f"sibling-{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def server(pair: list[Checkpoint]) -> Iterator[tuple[Drill, subprocess.Popen[bytes]]]:
    port = free_port()
    settings = {"engine": "vllm", "cache_entries": 0, "vllm_arguments": json.dumps(EAGER)}
    process = serve(pair[0].path.parent, pair[0], port, **settings)
    drill = Drill(port, list(QUERIES))
    try:
        asyncio.run(until_ready(drill, process, within_s=400))
        yield drill, process
    finally:
        process.terminate()
        process.wait(60)


def kill_engine(process: subprocess.Popen[bytes]) -> int:
    """Kill vLLM's processes under the server; how many there were."""
    killed = 0
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended by itself meanwhile
            words = " ".join(child.cmdline())
            if "EngineCore" in words or "VLLM" in words:
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
    return killed


def judged(drill: Drill, expected: dict[Any, Any], first: str) -> list[Violation]:
    return list(violations(drill.requests, drill.swaps, first_digest=first, expected=expected))


def test_twenty_swaps_in_place_under_32_clients_lose_and_mix_nothing(
    server: tuple[Drill, subprocess.Popen[bytes]], pair: list[Checkpoint]
) -> None:
    drill, process = server
    options = Namespace(
        mechanism="in_place", clients=32, swaps=20, pause_s=0.2, steady_s=2.0, warm_s=1.0,
        cache_entries=0, engine="vllm",
    )  # fmt: skip
    result = asyncio.run(run(drill, pair, options, process.pid))
    assert (result["violations"], result["rules_broken"], result["refused"]) == (0, {}, [])
    assert (result["swaps"], result["fell_back"]) == (20, 0)
    assert result["queries_answered_differently"] >= len(QUERIES) - 1
    assert {request.weights_digest for request in drill.requests} == {c.weights_digest for c in pair}


def test_one_beside_and_an_engine_killed_in_the_middle_of_the_next(
    server: tuple[Drill, subprocess.Popen[bytes]], pair: list[Checkpoint]
) -> None:
    drill, process = server

    async def scenario() -> tuple[dict[str, Any], dict[str, Any], str, dict[Any, Any]]:
        expected = {}
        for checkpoint in pair:
            await drill.activate(checkpoint, "in_place")
            for query in QUERIES:
                expected[checkpoint.weights_digest, query] = (await drill.ask(query)).said
        drill.requests.clear()
        drill.swaps.clear()
        stop = asyncio.Event()
        load = asyncio.create_task(drill.load(4, stop))
        beside = await drill.activate(pair[0], "beside")
        swap = asyncio.create_task(drill.activate(pair[1], "in_place"))
        await asyncio.sleep(0.05)
        assert kill_engine(process) >= 1
        killed = await swap
        for _ in range(3000):  # the engine is started again
            serving = await drill.ask(QUERIES[0])
            if serving.reason is None:
                break
            await asyncio.sleep(0.1)
        stop.set()
        await load
        return beside, killed, serving.weights_digest or "", expected

    beside, killed, serving, expected = asyncio.run(scenario())
    assert beside["mechanism"] == "beside", beside
    assert {request.status for request in drill.requests} == {200}
    broken = judged(drill, expected, pair[1].weights_digest)
    # While no engine lives the search goes on with the original, and the answer says why; nothing is mixed.
    assert {found.rule for found in broken} <= {
        "failed with reason engine_unavailable",
        "failed with reason engine_error",
    }
    assert all(found.request.said == () for found in broken)
    active = pair[1] if killed.get("outcome") == "activated" else pair[0]
    assert serving == active.weights_digest, killed


class Believing(VllmEngine):
    """vLLM 0.32's own reload, taken at its word."""

    async def reload(self, checkpoint_dir: Path, *, weights_digest: str) -> None:
        await self._llm.pause_generation(mode="wait", clear_cache=True)
        await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint_dir)})
        await self._llm.resume_generation()
        self._weights_digest = weights_digest


def test_the_proof_finds_a_reload_that_kept_the_old_head(pair: list[Checkpoint]) -> None:
    async def proven(engine: Any, checkpoint: Checkpoint) -> None:
        await prove(engine, checkpoint.golden, weights_digest=checkpoint.weights_digest)

    async def scenario() -> None:
        engine = SupervisedEngine(
            pair[0],
            lambda found: Believing(found.path, weights_digest=found.weights_digest, arguments=EAGER),
            breaker=Breaker(max_failures=5, open_s=1.0),
            prove=proven,
            timeout_s=60.0,
        )
        await engine.start()
        try:
            with pytest.raises(ProofError, match="golden prompt"):
                await engine.reload(pair[1])
            assert engine.weights_digest == pair[0].weights_digest
            await proven(engine, pair[0])
        finally:
            await engine.close()

    asyncio.run(scenario())
