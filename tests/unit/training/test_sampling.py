"""Drawing: the service's prompt, a seed for each prompt, the order of the instances."""

from __future__ import annotations

import asyncio

from fakes import FakeEngine, completion, query_of

from app.contracts.prompt import render
from app.relevance.base import Content
from training.config import SampleConfig
from training.datasets.instances import Instance, Seen
from training.sampling import sample

INSTANCES = [
    Instance(query, (Seen(Content("d"), 1.0),), (), ()) for query in ("rn", "mig welder", "rn night")
]
CONFIG = SampleConfig(num_generations=3, temperature=0.7, top_p=0.9, max_tokens=16)


def test_each_instance_gets_its_own_draws() -> None:
    engine = FakeEngine(completions=lambda query: [completion(f"{query} job")] * 3)
    done: list[int] = []
    found = asyncio.run(sample(engine, INSTANCES, CONFIG, seed=5, done=lambda: done.append(1)))
    assert [drawn[0].text for drawn in found] == ["rn job", "mig welder job", "rn night job"]
    assert len(done) == len(INSTANCES)
    assert {
        (one.mode, one.num_completions, one.temperature, one.top_p, one.max_tokens) for one in engine.asked
    } == {("sample", 3, 0.7, 0.9, 16)}
    assert [one.prompt for one in engine.asked] == [render(one.query) for one in INSTANCES]


def test_a_draw_depends_on_seed_and_prompt_alone() -> None:
    def seeds(seed: int, order: int) -> dict[str, int]:
        engine = FakeEngine()
        asyncio.run(sample(engine, INSTANCES[::order], CONFIG, seed=seed))
        return {query_of(one.prompt): one.seed for one in engine.asked}

    assert seeds(5, 1) == seeds(5, -1)
    assert len(set(seeds(5, 1).values())) == len(INSTANCES)
    assert not set(seeds(5, 1).values()) & set(seeds(6, 1).values())


def test_greedy_asks_for_one() -> None:
    engine = FakeEngine()
    asyncio.run(sample(engine, INSTANCES[:1], CONFIG, seed=5, mode="greedy"))
    assert [(one.mode, one.num_completions) for one in engine.asked] == [("greedy", 1)]
