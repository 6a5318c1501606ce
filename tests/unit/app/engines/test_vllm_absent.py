"""Without vLLM: the setting is honoured, and what is missing is said. `make test-vllm` has the rest."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest
from fakes import FakeCheckpoint

from app.engines.vllm import VllmEngine
from app.errors import EngineUnavailableError
from app.main import create_app
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.settings import Settings


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_vllm_is_named_with_what_to_install() -> None:
    engine = VllmEngine(DEFAULT_CHECKPOINT, weights_digest="0" * 64)
    with pytest.raises(EngineUnavailableError, match=r"install corewrite\[vllm\]"):
        asyncio.run(engine.start())


def test_the_setting_chooses_the_engine_and_hands_its_arguments_on() -> None:
    arguments = {"gpu_memory_utilization": 0.5, "speculative_config": {"method": "ngram"}}
    settings = Settings(engine="vllm", vllm_arguments=arguments)
    checkpoint = FakeCheckpoint(path=DEFAULT_CHECKPOINT)
    engine = create_app(settings, checkpoint=checkpoint).state.lineup.current.engine.inner
    assert isinstance(engine, VllmEngine)
    assert engine._arguments == arguments
    assert engine.weights_digest == checkpoint.weights_digest


def test_a_start_that_fails_late_leaves_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []

    class Loaded:
        def shutdown(self) -> None:
            stopped.append(True)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no memory left")

    engine = VllmEngine(DEFAULT_CHECKPOINT, weights_digest="0" * 64)
    engine._end_id = 1
    monkeypatch.setattr(engine, "_load", Loaded)
    monkeypatch.setattr(engine, "_steps", broken)
    for _ in range(2):  # it did not start, so it may be started again
        with pytest.raises(EngineUnavailableError, match="no memory left"):
            asyncio.run(engine.start())
    assert stopped == [True, True]
