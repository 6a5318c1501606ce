"""What both vLLM engines are held to: the n-best lists of the embedded engine."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from app.contracts.prompt import render
from app.engines.base import Engine, GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.registry.checkpoint import DEFAULT_CHECKPOINT


async def assert_beams_are_the_embedded_engines(engine: Engine, queries: Iterable[str]) -> None:
    embedded = EmbeddedEngine(DEFAULT_CHECKPOINT, weights_digest=engine.weights_digest)
    await embedded.start()
    for query in queries:
        request = GenerationRequest(prompt=render(query), num_completions=4, max_tokens=32)
        expected, found = await embedded.generate(request), await engine.generate(request)
        assert [c.token_ids for c in found.completions] == [c.token_ids for c in expected.completions]
        assert [c.text for c in found.completions] == [c.text for c in expected.completions]
        for one, other in zip(found.completions, expected.completions, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-2)
            assert one.finish_reason == other.finish_reason
    await embedded.close()
