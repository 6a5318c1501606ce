from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from fakes import FakeCheckpoint

from app.contracts.prompt import render
from app.engines.base import Generation, GenerationRequest
from app.engines.breaker import Breaker
from app.engines.embedded import EmbeddedEngine, EngineStats
from app.engines.onnx_backend import OnnxBackend
from app.engines.supervised import SupervisedEngine
from app.errors import EngineDeadError, EngineFailedError, EngineUnavailableError, InputTooLongError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from app.engines.batch import Backend
    from app.engines.scores import Scores
    from tests.unit.app.engines.conftest import Reference

T = TypeVar("T")


def run(engine: EmbeddedEngine, work: Callable[[], Awaitable[T]]) -> T:
    """Start the engine, do the work on its loop, close the engine."""

    async def main() -> T:
        await engine.start()
        try:
            return await work()
        finally:
            await engine.close()

    return asyncio.run(main())


def answers(engine: EmbeddedEngine, requests: list[GenerationRequest]) -> list[Generation]:
    """All of them at once."""

    async def work() -> list[Generation]:
        return await asyncio.gather(*(engine.generate(request) for request in requests))

    return run(engine, work)


def alone(engine: EmbeddedEngine, requests: list[GenerationRequest]) -> list[Generation]:
    """One after the other."""

    async def work() -> list[Generation]:
        return [await engine.generate(request) for request in requests]

    return run(engine, work)


def test_greedy_writes_what_transformers_writes(
    engine: EmbeddedEngine, reference: Reference, prompts: list[str]
) -> None:
    requests = [GenerationRequest(prompt, mode="greedy", max_tokens=16) for prompt in prompts]
    finishes = set()
    for request, generation in zip(requests, answers(engine, requests), strict=True):
        ids = reference.prompt_ids(request.prompt)
        expected = reference.generate(request.prompt, max_new_tokens=16, do_sample=False).sequences[0]
        (completion,) = generation.completions
        assert completion.token_ids == tuple(expected[len(ids) :].tolist())
        assert generation.prompt_tokens == len(ids)
        assert generation.weights_digest == "d" * 64
        assert completion.finish_reason == (
            "stop" if completion.token_ids[-1] == reference.end_id else "length"
        )
        assert "<|" not in completion.text
        finishes.add(completion.finish_reason)
    assert finishes == {"stop", "length"}


def test_beam_finds_the_hypotheses_of_transformers(
    engine: EmbeddedEngine, reference: Reference, prompts: list[str]
) -> None:
    requests = [GenerationRequest(p, mode="beam", num_completions=3, max_tokens=8) for p in prompts[::2]]
    for request, generation in zip(requests, answers(engine, requests), strict=True):
        found = reference.generate(
            request.prompt,
            num_beams=4,
            num_return_sequences=3,
            max_new_tokens=8,
            length_penalty=0.0,
            early_stopping=False,
            do_sample=False,
            output_scores=True,
        )
        start = len(reference.prompt_ids(request.prompt))
        expected = found.sequences_scores.tolist()
        assert [c.logprob for c in generation.completions] == pytest.approx(expected, abs=1e-4)
        for completion, sequence in zip(generation.completions, found.sequences.tolist(), strict=True):
            count = len(completion.token_ids)
            assert completion.token_ids == tuple(sequence[start : start + count])


@pytest.mark.parametrize("mode", ["greedy", "beam", "sample"])
def test_logprob_is_the_models_log_probability_of_the_tokens(
    engine: EmbeddedEngine, reference: Reference, prompts: list[str], mode: str
) -> None:
    base = GenerationRequest("", max_tokens=10, num_completions=2, temperature=0.7, top_p=0.8, seed=5)
    requests = [replace(base, prompt=prompt, mode=mode) for prompt in prompts[::5]]  # type: ignore[arg-type]
    for request, generation in zip(requests, answers(engine, requests), strict=True):
        logprobs = [completion.logprob for completion in generation.completions]
        assert logprobs == sorted(logprobs, reverse=True)
        for completion in generation.completions:
            expected = reference.logprob(request.prompt, completion.token_ids)
            assert completion.logprob == pytest.approx(expected, abs=1e-4)


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(checkpoint_dir: Path, prompts: list[str]) -> None:
    """Bit for bit: tokens and log-probabilities, in every mode, alone and under mixed load."""

    def make() -> EmbeddedEngine:
        return EmbeddedEngine(
            checkpoint_dir, weights_digest="d", threads=2, max_batch=9, max_model_tokens=128
        )

    requests = [
        GenerationRequest(
            prompt,
            mode=("greedy", "beam", "sample")[i % 3],  # type: ignore[arg-type]
            num_completions=1 + i % 4,
            max_tokens=4 + i % 9,
            temperature=1.0 + i % 2,
            top_p=0.9 if i % 4 else 1.0,
            seed=i,
        )
        for i, prompt in enumerate(prompts)
    ]
    assert answers(make(), requests) == alone(make(), requests)
    assert answers(make(), requests[::-1]) == alone(make(), requests)[::-1]


def test_sampling_is_a_function_of_the_seed(engine: EmbeddedEngine, prompts: list[str]) -> None:
    request = GenerationRequest(prompts[0], mode="sample", num_completions=4, max_tokens=8, temperature=2.0)
    same, again, other = answers(engine, [request, request, replace(request, seed=1)])
    assert same == again
    assert same != other
    assert len({completion.token_ids for completion in same.completions}) > 1


def test_a_nearly_empty_nucleus_is_greedy(engine: EmbeddedEngine, prompts: list[str]) -> None:
    sampled = GenerationRequest(prompts[3], mode="sample", max_tokens=8, temperature=3.0, top_p=1e-6)
    first, second = answers(engine, [sampled, replace(sampled, mode="greedy")])
    assert first.completions[0].token_ids == second.completions[0].token_ids


def test_too_long_a_prompt_is_refused_before_it_waits(engine: EmbeddedEngine) -> None:
    with pytest.raises(InputTooLongError, match="over 128"):
        answers(engine, [GenerationRequest(render("nurse " * 80))])


@pytest.mark.parametrize(
    "bad",
    [
        GenerationRequest("nurse", mode="sample", temperature=0.0),
        GenerationRequest("nurse", mode="sample", top_p=0.0),
        GenerationRequest("nurse", max_tokens=0),
        GenerationRequest("nurse", num_completions=0),
        GenerationRequest("nurse", num_completions=13),
        GenerationRequest(""),
    ],
)
def test_a_request_that_cannot_be_computed_fails_alone(
    engine: EmbeddedEngine, bad: GenerationRequest
) -> None:
    async def work() -> list[Generation | BaseException]:
        good = GenerationRequest("nurse", max_tokens=2)
        return await asyncio.gather(engine.generate(bad), engine.generate(good), return_exceptions=True)

    failed, answered = run(engine, work)
    assert isinstance(failed, EngineFailedError)
    assert isinstance(answered, Generation)


def test_it_answers_only_between_start_and_close(engine: EmbeddedEngine) -> None:
    request = GenerationRequest("nurse", max_tokens=2)

    async def work() -> None:
        with pytest.raises(EngineUnavailableError, match="not running"):
            await engine.generate(request)
        await engine.start()
        await engine.start()
        await engine.generate(request)
        await engine.close()
        await engine.close()
        with pytest.raises(EngineUnavailableError):
            await engine.generate(request)
        with pytest.raises(EngineUnavailableError, match="closed"):
            await engine.start()

    asyncio.run(work())


def test_closing_what_never_started_is_fine(engine: EmbeddedEngine) -> None:
    asyncio.run(engine.close())


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "llama"}, "model_type"),
        ("config.json", {"max_position_embeddings": 64}, "reads 64 tokens"),
        ("config.json", {"num_hidden_layers": 3}, r"model\.layers\.2"),
        ("config.json", None, r"config\.json"),
        ("model.safetensors", None, r"model\.safetensors"),
        ("tokenizer.json", None, r"tokenizer\.json"),
    ],
)
def test_an_unusable_checkpoint_says_why(
    checkpoint_dir: Path, tmp_path: Path, file: str, change: dict[str, object] | None, message: str
) -> None:
    folder = shutil.copytree(checkpoint_dir, tmp_path / "checkpoint")
    if change is None:
        (folder / file).unlink()
    else:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | change))
    engine = EmbeddedEngine(folder, weights_digest="d", max_model_tokens=128)
    with pytest.raises(EngineUnavailableError, match=message):
        asyncio.run(engine.start())


# A step of this small a model takes microseconds: on a busy machine a request would be over before the event
# loop has seen it run.
STEP_S = 0.002


class Gate:
    """A real backend that a test can slow down, count and break."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.rows: list[int] = []
        self.broken_prompts: set[int] = set()
        self.breaks_at: set[int] = set()
        self.breaks_with: type[BaseException] = RuntimeError

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> Scores:
        if any(len(prompt) in self.broken_prompts for prompt in prompts):
            raise RuntimeError("a broken prompt")
        return self._backend.prefill(first_slot, prompts)

    def decode(self, token_ids: Sequence[int], lengths: Sequence[int]) -> Scores:
        time.sleep(STEP_S)
        self.rows.append(len(token_ids))
        if len(self.rows) in self.breaks_at:
            raise self.breaks_with("a broken step")
        return self._backend.decode(token_ids, lengths)

    def copy(self, source: int, target: int, length: int) -> None:
        self._backend.copy(source, target, length)


@pytest.fixture
def gate(checkpoint_dir: Path) -> Gate:
    return Gate(OnnxBackend(checkpoint_dir, threads=1, slots=4, max_tokens=128))


def gated(checkpoint_dir: Path, gate: Gate, **changes: float) -> EmbeddedEngine:
    settings = {"max_batch": 4, "max_queue": 2, "max_model_tokens": 128} | changes
    return EmbeddedEngine(checkpoint_dir, weights_digest="d", make_backend=lambda: gate, **settings)  # type: ignore[arg-type]


# Sampling at this temperature is close to uniform over the vocabulary: it does not end soon.
ENDLESS = GenerationRequest("nurse", mode="sample", max_tokens=120, temperature=1e6, num_completions=4)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is the worker thread's
            await asyncio.sleep(0)


def test_cancelling_frees_the_rows_and_a_waiting_place(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate, max_queue=1)

    async def work() -> EngineStats:
        running = asyncio.create_task(engine.generate(ENDLESS))
        await until(lambda: engine.stats().running == 1)
        waiting = asyncio.create_task(engine.generate(ENDLESS))
        await until(lambda: engine.stats().waiting == 1)
        with pytest.raises(EngineUnavailableError, match="wait already"):
            await engine.generate(ENDLESS)
        waiting.cancel()
        await until(lambda: engine.stats().waiting == 0)
        running.cancel()
        await until(lambda: engine.stats().running == 0)
        await engine.generate(GenerationRequest("nurse", mode="beam", max_tokens=2))
        return engine.stats()

    stats = run(engine, work)
    assert stats.running == 0
    assert stats.prompt_tokens_total > 0
    assert 0 < stats.completion_tokens_total <= 2


def test_requests_join_and_leave_between_steps(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate)
    long = replace(ENDLESS, num_completions=2)

    async def work() -> None:
        running = asyncio.create_task(engine.generate(long))
        await until(lambda: engine.stats().running == 1)
        await engine.generate(replace(long, prompt="welder", max_tokens=3))
        assert not running.done()
        await running

    run(engine, work)
    assert max(gate.rows) == 4
    assert gate.rows[-1] <= 2


def test_a_failing_prompt_takes_nobody_along(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate)

    async def work() -> list[Generation | BaseException]:
        gate.broken_prompts = {len(engine._tokenizer.encode("welder").ids)}
        prompts = ("registered nurse, rn icu nights " * 4, "welder")
        requests = [GenerationRequest(p, mode="greedy", max_tokens=6) for p in prompts]
        return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)

    answered, failed = run(engine, work)
    assert isinstance(answered, Generation)
    assert isinstance(failed, EngineFailedError)
    assert "a broken prompt" in str(failed)


def test_a_failing_step_fails_those_in_it_and_the_worker_goes_on(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate)
    request = GenerationRequest("nurse", mode="sample", max_tokens=6, temperature=1e6)

    async def work() -> Generation:
        before = await engine.generate(request)
        gate.breaks_at = {len(gate.rows) + 1}
        with pytest.raises(EngineFailedError, match="a broken step"):
            await engine.generate(request)
        assert await engine.generate(request) == before
        return before

    assert run(engine, work).completions


def test_a_thread_that_dies_leaves_nobody_waiting_and_the_engine_is_started_again(
    checkpoint_dir: Path, gate: Gate
) -> None:
    request = GenerationRequest("nurse", mode="beam", max_tokens=6)

    async def scenario() -> None:
        restarted = asyncio.Event()
        engine = SupervisedEngine(
            FakeCheckpoint(),
            lambda _checkpoint: gated(checkpoint_dir, gate),
            breaker=Breaker(max_failures=10, open_s=60.0),
            timeout_s=30.0,
            on_restart=restarted.set,
        )
        await engine.start()
        before = await engine.generate(request)
        gate.breaks_with, gate.breaks_at = SystemExit, {len(gate.rows) + 3}
        running, waiting = (asyncio.create_task(engine.generate(ENDLESS)) for _ in range(2))
        outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {EngineDeadError}, outcomes
        await asyncio.wait_for(restarted.wait(), 10)
        assert await engine.generate(request) == before
        await engine.close()

    asyncio.run(scenario())


def test_closing_drains_what_runs_and_refuses_what_waits(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate)

    async def work() -> None:
        running = asyncio.create_task(engine.generate(ENDLESS))
        await until(lambda: engine.stats().running == 1)
        waiting = asyncio.create_task(engine.generate(ENDLESS))
        await until(lambda: engine.stats().waiting == 1)
        await engine.close()
        assert len((await running).completions) == 4
        with pytest.raises(EngineUnavailableError):
            await waiting

    run(engine, work)


def test_closing_does_not_wait_longer_than_the_drain(checkpoint_dir: Path, gate: Gate) -> None:
    engine = gated(checkpoint_dir, gate, drain_s=0.0)

    async def work() -> None:
        running = asyncio.create_task(engine.generate(ENDLESS))
        await until(lambda: engine.stats().running == 1)
        await engine.close()
        with pytest.raises(EngineUnavailableError, match="was closed"):
            await running

    run(engine, work)


def test_the_event_loop_stays_free(engine: EmbeddedEngine, prompts: list[str]) -> None:
    async def work() -> int:
        tasks = [asyncio.create_task(engine.generate(GenerationRequest(p, max_tokens=16))) for p in prompts]
        turns = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(*tasks)
        return turns

    assert run(engine, work) > len(prompts)


def test_a_prompt_of_one_token_and_a_step_of_one_row_do_not_disturb_each_other(checkpoint_dir: Path) -> None:
    """Both are runs of one row and one token, over the same buffers."""

    def best(prompts: list[list[int]]) -> list[list[int]]:
        backend = OnnxBackend(checkpoint_dir, threads=1, slots=4, max_tokens=128)
        found = []
        for prompt in prompts:
            backend.prefill(0, [prompt])
            scores = backend.decode([7], [len(prompt)])
            found.append([token for token, _ in scores.top(0, 8)])
        return found

    prompts = [[3], [3, 4, 5, 6], [5], [6, 5]]
    assert best(prompts) == [best([prompt])[0] for prompt in prompts]
    assert len({tuple(row) for row in best(prompts)}) == len(prompts)


@pytest.mark.parametrize("error", [MemoryError(), Exception("std::bad_alloc")])
def test_what_cannot_be_loaded_for_want_of_memory_is_unavailable(
    checkpoint_dir: Path, error: Exception
) -> None:
    def make_backend() -> Backend:
        raise error

    engine = EmbeddedEngine(checkpoint_dir, weights_digest="d", make_backend=make_backend)
    with pytest.raises(EngineUnavailableError, match=f"{checkpoint_dir}: .*(MemoryError|bad_alloc)"):
        asyncio.run(engine.start())
