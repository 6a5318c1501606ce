"""The openai engine against a real `vllm serve`: one server for all tests, which the last one kills."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from beams import assert_beams_are_the_embedded_engines
from ports import free_port
from safetensors.torch import load_file, save_file
from vllm_serve import VllmServe, vllm_serve

from app.contracts.prompt import PAD, render
from app.contracts.reasons import Reason
from app.engines.base import Generation, GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.engines.openai import OpenaiEngine
from app.errors import ActivationError, EngineUnavailableError, InputTooLongError
from app.main import create_app
from app.registry.checkpoint import DEFAULT_CHECKPOINT, describe_file, load_checkpoint
from app.rewrite.answer import Query
from app.rewrite.deadline import Deadline
from app.settings import Settings
from loadtest.sibling import publish

CHECKPOINT = load_checkpoint(DEFAULT_CHECKPOINT)
DIGEST = CHECKPOINT.weights_digest
QUERIES = (
    *("truck hopper", "registerd nurse", "bluetoth headphones", "laptop", "er doctor", "code monkey"),
    "zzz iphone sales data case",  # here vLLM's own beam search lists another fourth
)
LONG = GenerationRequest(prompt=render("laptop"), mode="greedy", max_tokens=200)
RANK, ALPHA = 4, 16
KEY = "sesame"

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServe]:
    """It has a key, loads adapters, and has defaults of its own that would spoil every answer."""
    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(DEFAULT_CHECKPOINT, folder / "checkpoint")
    also_ends = [golden.token_ids[0] for golden in CHECKPOINT.manifest.golden]
    defaults = {"top_k": 1, "top_p": 0.1, "repetition_penalty": 3.0, "eos_token_id": [1, *also_ends]}
    (folder / "checkpoint" / "generation_config.json").write_text(json.dumps(defaults))
    options = ("--enable-lora", "--max-lora-rank", "8", "--api-key", KEY)
    with vllm_serve(
        folder / "checkpoint", *options, name="default", port=free_port(), log=folder / "log.txt"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def engine(run: Run, server: VllmServe) -> Iterator[OpenaiEngine]:
    engine = connect(server)
    run(engine.start())
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def endless(run: Run, server: VllmServe) -> Iterator[OpenaiEngine]:
    """An engine whose completions all have `max_tokens`: it waits for an end token that never comes."""
    engine = connect(server, connect_timeout_s=30.0)  # a second is short on a busy machine
    run(engine.start())
    engine._end_id = engine._tokenizer.token_to_id(PAD)
    yield engine
    run(engine.close())


def connect(server: VllmServe, **options: Any) -> OpenaiEngine:
    options = {"model": "default", "weights_digest": DIGEST, "api_key": KEY, **options}
    return OpenaiEngine(DEFAULT_CHECKPOINT, base_url=server.url, **options)


async def greedy(engine: OpenaiEngine | EmbeddedEngine, prompt: str) -> tuple[tuple[int, ...], float]:
    request = GenerationRequest(prompt=prompt, mode="greedy", max_tokens=24)
    [completion] = (await engine.generate(request)).completions
    return completion.token_ids, completion.logprob


async def again_and_again(
    engine: OpenaiEngine, request: GenerationRequest, finished: list[Generation]
) -> None:
    """Work that is still under way whenever it is looked at, however fast the machine."""
    while True:
        finished.append(await engine.generate(request))


async def until(what: str, holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"not seen: {what}")


def test_greedy_writes_the_golden_tokens(run: Run, engine: OpenaiEngine) -> None:
    async def scenario() -> None:
        for golden in CHECKPOINT.manifest.golden:
            token_ids, _ = await greedy(engine, golden.prompt)
            assert token_ids == golden.token_ids

    run(scenario())


@pytest.mark.parametrize("many_prompts", [True, False])
def test_its_beams_are_the_embedded_engines(run: Run, engine: OpenaiEngine, *, many_prompts: bool) -> None:
    async def scenario() -> None:
        assert engine._many_prompts  # `vllm serve` reads them; where a router does not, one at a time
        engine._many_prompts = many_prompts
        await assert_beams_are_the_embedded_engines(engine, QUERIES)
        engine._many_prompts = True

    run(scenario())


def test_sampling_is_seeded_and_its_logprobs_are_the_models(run: Run, engine: OpenaiEngine) -> None:
    def sample(seed: int, temperature: float, top_p: float = 1.0) -> Any:
        request = GenerationRequest(
            prompt=render("code monkey"),
            mode="sample",
            num_completions=6,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
        return run(engine.generate(request)).completions

    first, next_seed = sample(1, 1.5), sample(2, 1.5)
    assert len(first) == 6
    assert [c.token_ids for c in first] == [c.token_ids for c in sample(1, 1.5)]
    assert not {c.token_ids for c in first} & {c.token_ids for c in next_seed}
    assert [c.logprob for c in first] == sorted((c.logprob for c in first), reverse=True)
    # Nearly greedy draws, and draws of a nucleus of one token, are greedy's tokens: at greedy's logprob.
    token_ids, logprob = run(greedy(engine, render("code monkey")))
    for completion in (*sample(1, 0.01), *sample(1, 1.5, top_p=1e-6)):
        assert completion.token_ids == token_ids
        assert completion.logprob == pytest.approx(logprob, abs=1e-3)


@pytest.mark.parametrize("mode", ["greedy", "beam"])
def test_a_cancelled_request_leaves_nothing_behind(
    run: Run, server: VllmServe, endless: OpenaiEngine, mode: Any
) -> None:
    def running() -> float:
        return server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting")

    def generated() -> float:
        return server.metric("vllm:generation_tokens_total")

    async def scenario() -> None:
        before, count = generated(), 8
        finished: list[Generation] = []
        request = replace(LONG, mode=mode)
        tasks = [asyncio.create_task(again_and_again(endless, request, finished)) for _ in range(count)]
        await until("work", lambda: generated() > before)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in outcomes if not isinstance(one, asyncio.CancelledError)] == []
        await until("an idle vLLM", lambda: running() == 0)
        assert generated() - before < (len(finished) + count) * LONG.max_tokens

    run(scenario())


def test_what_does_not_fit_is_refused_here_and_by_the_fleet(
    run: Run, server: VllmServe, engine: OpenaiEngine
) -> None:
    words = render("a b c d " * 100)
    with pytest.raises(InputTooLongError):
        run(engine.generate(GenerationRequest(prompt=words, max_tokens=200)))
    with pytest.raises(EngineUnavailableError, match="window of 256 tokens is smaller than ours of 4096"):
        run(connect(server, max_model_tokens=4096).start())
    engine._max_model_tokens = 4096  # as if the fleet had come back with a smaller window
    for mode in ("greedy", "beam"):
        with pytest.raises(InputTooLongError, match="400"):
            run(engine.generate(GenerationRequest(prompt=words, mode=mode, max_tokens=8)))
    engine._max_model_tokens = 256


def test_a_model_that_is_not_served_is_refused_with_what_is(run: Run, server: VllmServe) -> None:
    with pytest.raises(EngineUnavailableError, match="serves default, not another"):
        run(connect(server, model="another").start())


def test_a_missing_key_is_said(run: Run, server: VllmServe) -> None:
    with pytest.raises(EngineUnavailableError, match=r"401 \(check the API key\)"):
        run(connect(server, api_key=None).start())


def write_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """A random adapter that changes what is written; by weight, what it adds."""
    weights = load_file(DEFAULT_CHECKPOINT / "model.safetensors")
    random = torch.Generator().manual_seed(7)
    modules = ("q_proj", "v_proj", "o_proj", "down_proj")
    tensors: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if name.split(".")[-2] in modules:
            inner = torch.randn(RANK, weight.shape[1], generator=random) * 0.08
            outer = torch.randn(weight.shape[0], RANK, generator=random) * 0.08
            stem = "base_model.model." + name.removesuffix(".weight")
            tensors |= {f"{stem}.lora_A.weight": inner, f"{stem}.lora_B.weight": outer}
            added[name] = ALPHA / RANK * outer @ inner
    assert len(added) == 4 * len(modules)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "default",
        "bias": "none",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(modules),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of an adapter, and of a checkpoint into which it is merged."""
    folder = tmp_path_factory.mktemp("lora")
    added = write_adapter(folder / "adapter")
    shutil.copytree(DEFAULT_CHECKPOINT, folder / "merged")
    file = folder / "merged" / "model.safetensors"
    weights = {name: weight.float() for name, weight in load_file(file).items()}
    save_file({name: weight + added.get(name, 0.0) for name, weight in weights.items()}, file)
    return folder / "adapter", folder / "merged"


def test_an_adapter_writes_what_the_merged_weights_write(
    run: Run, server: VllmServe, engine: OpenaiEngine, adapter: tuple[Path, Path]
) -> None:
    async def scenario() -> None:
        options = {"model": "tuned", "adapter_path": str(adapter[0])}
        tuned, again = connect(server, **options), connect(server, **options)
        merged = EmbeddedEngine(adapter[1], weights_digest=DIGEST)
        await asyncio.gather(tuned.start(), merged.start())
        await again.start()  # by another replica of this service: loaded already
        changed = 0
        for query in QUERIES:
            token_ids, logprob = await greedy(tuned, render(query))
            expected = await greedy(merged, render(query))
            assert token_ids == expected[0]
            assert logprob == pytest.approx(expected[1], abs=1e-2)
            changed += token_ids != (await greedy(engine, render(query)))[0]
        assert changed == len(QUERIES)
        await tuned.close()  # unloads it, under the other's feet
        assert (await greedy(again, render("laptop")))[0] == (await greedy(merged, render("laptop")))[0]
        await again.close()
        with pytest.raises(EngineUnavailableError, match="serves default, not tuned"):
            await connect(server, model="tuned").start()
        await merged.close()

    run(scenario())


def test_a_service_activates_an_adapter_proves_it_and_goes_back(
    run: Run, server: VllmServe, adapter: tuple[Path, Path]
) -> None:
    root = adapter[0].parent
    tuned = publish(CHECKPOINT, adapter[1])
    liar = root / "liar"  # its manifest vouches for other weights than the fleet has under that name
    shutil.copytree(adapter[1], liar)
    shutil.copytree(adapter[0], root / "liar-adapter")
    (root / "liar-adapter" / "adapter_model.safetensors").unlink()
    weights = load_file(adapter[0] / "adapter_model.safetensors")
    other = {name: -weight if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(other, root / "liar-adapter" / "adapter_model.safetensors")
    document = json.loads((liar / "manifest.json").read_text())
    readme = liar / "README.md"
    readme.write_text("other bytes, another digest")
    document["files"]["README.md"] = describe_file(readme).model_dump()
    (liar / "manifest.json").write_text(json.dumps({**document, "checkpoint_id": "liar"}))
    shutil.copytree(adapter[0], root / "merged-adapter")
    shutil.copytree(DEFAULT_CHECKPOINT, root / "default")
    settings = Settings(
        engine="openai",
        openai_url=server.url,
        openai_api_key=KEY,
        openai_adapters=str(root / "{id}-adapter"),
        checkpoint=root / "default",
        deadline_ms=60_000,
        generation_timeout_s=60,
    )

    async def scenario() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            service, activator = app.state.service, app.state.activator

            async def digests() -> set[str]:
                queries = [Query(query, str(place)) for place, query in enumerate(QUERIES)]
                due = Deadline(time.monotonic() + 60, "default")
                answers = await asyncio.gather(*(service.rewrite(query, due) for query in queries))
                reasons = {answer.reason for answer in answers}
                assert not reasons & {Reason.ENGINE_ERROR, Reason.ENGINE_UNAVAILABLE, Reason.DEADLINE}
                return {answer.weights_digest for answer in answers}

            assert await digests() == {CHECKPOINT.weights_digest}
            done = await activator.activate("merged", "in_place")
            assert (done.mechanism, done.told_apart) == ("beside", True)
            assert "in place" in done.fell_back
            assert await digests() == {tuned.weights_digest}
            with pytest.raises(ActivationError, match="golden prompt"):
                await activator.activate("liar", "beside")
            assert await digests() == {tuned.weights_digest}
            await activator.activate("default", "beside")
            assert await digests() == {CHECKPOINT.weights_digest}

    run(scenario())


def test_an_adapter_that_is_not_there_is_refused(run: Run, server: VllmServe, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="no adapter"):
        run(connect(server, model="missing", adapter_path=str(tmp_path / "none")).start())


def test_a_killed_fleet_fails_what_runs_and_is_found_again(
    run: Run, server: VllmServe, engine: OpenaiEngine, endless: OpenaiEngine, adapter: tuple[Path, Path]
) -> None:
    async def scenario() -> None:
        tuned = connect(server, model="tuned", adapter_path=str(adapter[0]))
        await tuned.start()
        before = [await greedy(one, render("laptop")) for one in (engine, tuned)]
        seen = server.metric("vllm:prompt_tokens_total")
        tasks = [asyncio.create_task(again_and_again(endless, LONG, [])) for _ in range(16)]
        await until("work", lambda: server.metric("vllm:prompt_tokens_total") > seen)
        await asyncio.to_thread(server.kill)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {EngineUnavailableError}
        with pytest.raises(EngineUnavailableError, match="ConnectError"):
            await greedy(engine, render("laptop"))
        await asyncio.to_thread(server.start)
        for one, expected in zip((engine, tuned), before, strict=True):
            token_ids, logprob = await greedy(one, render("laptop"))
            assert token_ids == expected[0]
            assert logprob == pytest.approx(expected[1], abs=1e-3)
        await tuned.close()

    run(scenario())
