from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import free_port
from scored import log_softmax, scored
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from app.contracts.prompt import END
from app.engines.base import GenerationRequest
from app.engines.decoding import Beam, Greedy, Hypothesis, make_decoder, spread
from app.engines.openai import NEUTRAL, OpenaiEngine
from app.engines.openai_wire import mapped, refusal
from app.errors import EngineBusyError, EngineFailedError, EngineUnavailableError, InputTooLongError

DIGEST = "5e" * 32
WORDS = ("<unk>", END, *"abcdefghij")
END_ID, VOCABULARY, WINDOW = 1, len(WORDS), 64


def logits(ids: list[int], model: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The fake fleet's language model: any numbers, but the same for the same prefix."""
    random = np.random.default_rng([model, *ids])
    return (random.standard_normal((1, VOCABULARY)) * 2).astype(np.float32)


def expected(prompt: list[int], request: GenerationRequest, model: int) -> list[Hypothesis]:
    """What the decoding rules of the embedded engine make of that model."""
    decoder = make_decoder(request, end_id=END_ID, beam_width=4)
    assert isinstance(decoder, Beam | Greedy)
    rows = [prompt]
    while rows:
        continuations = decoder.advance(scored(np.concatenate([logits(row, model) for row in rows])))
        rows = [[*rows[row], token] for row, token in continuations]
    return decoder.results()


@dataclass
class Fleet:
    """As much of `vllm serve` as the engine meets, with one fault at a time."""

    model: int = 0
    served: dict[str, int | None] = field(default_factory=lambda: {"default": WINDOW})
    adapters: set[str] = field(default_factory=set)
    loads_adapters: bool = True
    many_prompts: bool = True
    processed_logprobs: bool = False
    status: int = 200
    text: str = "no"
    raises: Exception | None = None
    alter: Callable[[Any], object] = lambda _: None
    gate: asyncio.Event | None = None
    asked: list[httpx.Request] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    cancelled: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.raises is not None:
            raise self.raises
        body = json.loads(request.content or "{}")
        match request.url.path.rsplit("/v1/", 1)[-1]:
            case "models":
                cards = [*self.served.items(), *((name, None) for name in self.adapters)]
                data = [{"id": name, "max_model_len": window, "root": "/x"} for name, window in cards]
                return httpx.Response(200, json={"object": "list", "data": data})
            case "load_lora_adapter" if self.loads_adapters:
                if body["lora_name"] in self.adapters:
                    return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
                self.adapters.add(body["lora_name"])
                return httpx.Response(200, text="Success")
            case "unload_lora_adapter" if self.loads_adapters:
                self.adapters.discard(body["lora_name"])
                return httpx.Response(200, text="Success")
            case "completions":
                return await self.complete(body)
        return httpx.Response(404, json={"detail": "Not Found"})

    async def complete(self, body: dict[str, Any]) -> httpx.Response:
        if self.gate is not None:
            self.arrived.release()
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.status != 200:
            return error(self.status, self.text)
        if body["model"] not in {*self.served, *self.adapters}:
            return error(404, f"The model `{body['model']}` does not exist.")
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        if len(prompts) > 1 and not self.many_prompts:
            return error(400, "prompt: not a list of integers")
        choices = [self.choice(ids, body, i) for ids in prompts for i in range(body.get("n", 1))]
        for index, choice in enumerate(choices):
            choice["index"] = index
        answer = {"object": "text_completion", "choices": choices[::-1], "usage": None}
        self.alter(answer)
        return httpx.Response(200, content=json.dumps(answer))  # which writes NaN, as Python does

    def choice(self, prompt: list[int], body: dict[str, Any], index: int) -> dict[str, Any]:
        assert body["stop_token_ids"] == [END_ID]
        assert body.items() >= {**NEUTRAL, "top_p": body["top_p"]}.items()
        ids, temperature = list(prompt), body["temperature"]
        random = np.random.default_rng(body.get("seed", 0) + index)
        tops: list[dict[str, float]] = []
        drawn: list[float] = []
        while len(tops) < body["max_tokens"] and len(ids) < WINDOW:
            raw = logits(ids, self.model)
            logprobs = log_softmax(raw)[0]
            hot = log_softmax(raw / (temperature or 1.0))[0]
            token = int(random.choice(VOCABULARY, p=np.exp(hot))) if temperature else int(logprobs.argmax())
            if self.processed_logprobs:
                logprobs = hot
            best = [token, *np.argsort(-logprobs)[: body["logprobs"]].tolist()]
            tops.append({f"token_id:{i}": float(logprobs[i]) for i in best})
            drawn.append(float(logprobs[token]))
            ids.append(token)
            if token == END_ID:
                break
        return {
            "text": "never read",
            "token_ids": ids[len(prompt) :],
            "logprobs": {"token_logprobs": drawn, "top_logprobs": tops, "tokens": [], "text_offset": []},
            "finish_reason": "stop" if ids[-1] == END_ID else "length",
            "stop_reason": None,
        }

    def bodies(self, path: str = "completions") -> list[Any]:
        return [json.loads(r.content) for r in self.asked if r.url.path.endswith(path)]


def error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": status}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    words = dict(zip(WORDS, range(VOCABULARY), strict=True))
    tokenizer = Tokenizer(WordLevel(words, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_engine(folder: Path, fleet: Fleet, **options: Any) -> OpenaiEngine:
    options = {"base_url": "http://fleet", "model": "default", "max_model_tokens": WINDOW, **options}
    return OpenaiEngine(folder, weights_digest=DIGEST, transport=httpx.MockTransport(fleet), **options)


@asynccontextmanager
async def started(folder: Path, fleet: Fleet, **options: Any) -> AsyncIterator[OpenaiEngine]:
    engine = make_engine(folder, fleet, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def ask(prompt: str = "a b c", **fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "max_tokens": 8, **fields})


async def outcome(engine: OpenaiEngine, request: GenerationRequest) -> BaseException | None:
    [found] = await asyncio.gather(engine.generate(request), return_exceptions=True)
    return found if isinstance(found, BaseException) else None


@settings(deadline=None, max_examples=60)
@given(
    model=st.integers(0, 2**32 - 1),
    words=st.lists(st.sampled_from(WORDS[2:]), min_size=1, max_size=6),
    mode=st.sampled_from(["greedy", "beam"]),
    num_completions=st.integers(1, 6),
    max_tokens=st.integers(1, 10),
    many_prompts=st.booleans(),
)
def test_it_decodes_as_the_embedded_engine_does(
    folder: Path, model: int, words: list[str], mode: Any, *, many_prompts: bool, **numbers: int
) -> None:
    async def scenario() -> None:
        fleet = Fleet(model=model, many_prompts=many_prompts)
        request = ask(" ".join(words), mode=mode, **numbers)
        async with started(folder, fleet) as engine:
            generation = await engine.generate(request)
        prompt = [WORDS.index(word) for word in words]
        wanted = expected(prompt, request, model)
        assert [c.token_ids for c in generation.completions] == [h.token_ids for h in wanted]
        assert [c.finish_reason for c in generation.completions] == [h.finish for h in wanted]
        assert [c.logprob for c in generation.completions] == pytest.approx([h.logprob for h in wanted])
        for completion in generation.completions:
            text = " ".join(WORDS[token] for token in completion.token_ids if token != END_ID)
            assert completion.text == text
        assert (generation.weights_digest, generation.prompt_tokens) == (DIGEST, len(words))

    asyncio.run(scenario())


def test_samples_come_best_first_with_the_models_logprobs(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            request = ask(mode="sample", num_completions=5, temperature=1.5, top_p=0.9, seed=3)
            completions = (await engine.generate(request)).completions
        assert len(completions) == 5
        assert [c.logprob for c in completions] == sorted((c.logprob for c in completions), reverse=True)
        for completion in completions:
            ids = [2, 3, 4, *completion.token_ids]
            steps = [(ids[:i], ids[i]) for i in range(3, len(ids))]
            total = sum(float(log_softmax(logits(before, 0))[0, token]) for before, token in steps)
            assert completion.logprob == pytest.approx(total)
        sent = fleet.bodies()[-1]
        assert (sent["n"], sent["temperature"], sent["top_p"]) == (5, 1.5, 0.9)
        assert (sent["prompt"], sent["seed"]) == ([2, 3, 4], spread(3))

    asyncio.run(scenario())


@given(st.integers(-(2**70), 2**70))
def test_neighbouring_seeds_share_no_completion(seed: int) -> None:
    assert 0 <= spread(seed) < 2**56  # an int64 with room for the index of a completion
    assert abs(spread(seed) - spread(seed + 1)) > 10_000


@pytest.mark.parametrize(
    "base_url", ["http://fleet/t", "http://fleet/t/", "http://fleet/t/v1", "http://fleet/t/v1/"]
)
def test_the_url_is_taken_with_and_without_its_version(folder: Path, base_url: str) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet, base_url=base_url) as engine:
            await engine.generate(ask())
        assert {str(request.url) for request in fleet.asked} == {
            "http://fleet/t/v1/models",
            "http://fleet/t/v1/completions",
        }

    asyncio.run(scenario())


def test_a_step_of_a_beam_is_one_call_or_one_for_each_row(folder: Path) -> None:
    async def calls(fleet: Fleet) -> list[int]:
        async with started(folder, fleet) as engine:
            fleet.asked.clear()
            await engine.generate(ask(num_completions=4, max_tokens=3))
        prompts = [body["prompt"] for body in fleet.bodies()]
        return [len(prompt) if isinstance(prompt[0], list) else 1 for prompt in prompts]

    assert asyncio.run(calls(Fleet())) == [1, 4, 4]
    assert asyncio.run(calls(Fleet(many_prompts=False))) == [1] * 9


def test_the_key_is_sent_and_never_told(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet, api_key="sesame\n"):
            assert {request.headers["authorization"] for request in fleet.asked} == {"Bearer sesame"}
        for key in ("open\nsesame", "sésame"):
            with pytest.raises(EngineUnavailableError, match="API key") as caught:
                await make_engine(folder, fleet, api_key=key).start()
            assert "same" not in str(caught.value)
        async with started(folder, fleet):
            assert "authorization" not in fleet.asked[-1].headers

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fleet", "options", "message"),
    [
        (Fleet(served={"x": 64, "y": 64}), {}, "it serves x, y, not default"),
        (Fleet(served={}), {}, "it serves nothing, not default"),
        (Fleet(), {"max_model_tokens": 65}, "window of 64 tokens is smaller than ours of 65"),
        (Fleet(processed_logprobs=True), {}, "--logprobs-mode raw_logprobs"),
        (Fleet(status=401), {}, "check the API key"),
        (Fleet(status=500), {}, "the fleet answered 500"),
        (Fleet(raises=httpx.ConnectError("refused")), {}, "http://fleet/v1/: ConnectError: refused"),
        (Fleet(loads_adapters=False), {"model": "tuned", "adapter_path": "/a"}, "--enable-lora"),
        (Fleet(alter=lambda answer: answer.clear()), {}, "choices: Field required"),
    ],
)
def test_what_is_wrong_at_the_start_is_said(
    folder: Path, fleet: Fleet, options: dict[str, Any], message: str
) -> None:
    async def scenario() -> None:
        engine = make_engine(folder, fleet, **options)
        for _ in range(2):  # it did not start, so it may be started again
            with pytest.raises(EngineUnavailableError, match=message):
                await engine.start()
            assert isinstance(await outcome(engine, ask()), EngineUnavailableError)
        await engine.close()

    asyncio.run(scenario())


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match=r"tokenizer\.json"):
        asyncio.run(make_engine(tmp_path, Fleet()).start())


def test_a_real_port_without_a_server_is_unavailable(folder: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    engine = OpenaiEngine(folder, base_url=url, model="default", weights_digest=DIGEST)
    with pytest.raises(EngineUnavailableError, match="ConnectError"):
        asyncio.run(engine.start())


def test_without_httpx_it_says_what_to_install() -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "sys.modules['httpx'] = None\n"
        "from app.engines.openai import OpenaiEngine\n"
        "engine = OpenaiEngine(pathlib.Path(), base_url='http://x', model='m', weights_digest='0' * 64)\n"
        "asyncio.run(engine.start())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "EngineUnavailableError: " in ended.stderr
    assert "install corewrite[openai]" in ended.stderr


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ask("a " * 60), InputTooLongError),
        (ask(""), EngineFailedError),
        (ask(max_tokens=0), EngineFailedError),
        (ask(mode="sample", temperature=0.0), EngineFailedError),
    ],
)
def test_what_cannot_be_asked_is_refused_here(
    folder: Path, request_: GenerationRequest, error: type[Exception]
) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            fleet.asked.clear()
            assert type(await outcome(engine, request_)) is error
            assert not fleet.asked

    asyncio.run(scenario())


def httpx_errors() -> Iterator[Exception]:
    """One of each class of exception that httpx has."""
    request = httpx.Request("GET", "http://fleet")
    for _, kind in inspect.getmembers(httpx, inspect.isclass):
        if not issubclass(kind, Exception):
            continue
        if kind is httpx.HTTPStatusError:
            yield httpx.HTTPStatusError("x", request=request, response=httpx.Response(500))
        else:
            yield kind("x") if "message" in inspect.signature(kind).parameters else kind()


def test_every_exception_of_httpxs_is_mapped(folder: Path) -> None:
    async def scenario() -> dict[str, type[BaseException]]:
        found = {}
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            for raised in (*httpx_errors(), OSError("x"), RuntimeError("x")):
                fleet.raises = raised
                answer = await outcome(engine, ask())
                assert answer is not None
                assert type(raised).__name__ in str(answer)
                found[type(raised).__name__] = type(answer)
        return found

    kinds = asyncio.run(scenario())
    assert len(kinds) >= 30
    assert {name for name, kind in kinds.items() if kind is EngineBusyError} == {"PoolTimeout"}
    failed = {name for name, kind in kinds.items() if kind is EngineFailedError}
    assert failed == {
        *("HTTPError", "HTTPStatusError", "RequestError", "TooManyRedirects", "DecodingError"),
        *("CookieConflict", "StreamError", "StreamClosed", "StreamConsumed"),
        *("RequestNotRead", "ResponseNotRead", "OSError", "RuntimeError"),
    }
    assert {*kinds.values()} == {EngineBusyError, EngineFailedError, EngineUnavailableError}
    assert isinstance(mapped(InputTooLongError("x")), InputTooLongError)
    assert str(mapped(httpx.ReadTimeout(""))) == "ReadTimeout"  # httpx says no more of it


def test_every_status_is_mapped(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            for fleet.status in range(201, 600):
                found = await outcome(engine, ask())
                assert type(found) is type(refusal(fleet.status, ""))
                assert str(fleet.status) in str(found)

    asyncio.run(scenario())
    by_kind: dict[type[Exception], set[int]] = {}
    for status in (*range(100, 200), *range(201, 600)):
        by_kind.setdefault(type(refusal(status, "")), set()).add(status)
    away = {401, 403, 404, 407, 408, 502, 503, 504, *range(300, 400)}
    assert by_kind.pop(EngineUnavailableError) == away
    assert by_kind.pop(EngineBusyError) == {429}
    assert [*by_kind] == [EngineFailedError]


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "This model's maximum context length is 256 tokens. However, your prompt", InputTooLongError),
        (400, "max_tokens must be at least 1, got 0.", InputTooLongError),
        (422, "longer than the maximum model length of 256", InputTooLongError),
        (400, "Requested sample logprobs of 24, which is greater than max allowed: 20", EngineFailedError),
        (500, "maximum context length", EngineFailedError),
        (503, "The engine is currently busy and cannot accept new requests.", EngineBusyError),
        (503, "The engine has reached its prefill token backlog limit.", EngineBusyError),
        (503, "Request dropped due to backpressure", EngineBusyError),
        (503, "no healthy upstream", EngineUnavailableError),
    ],
)
def test_a_statuss_words_count(folder: Path, status: int, text: str, kind: type[Exception]) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            fleet.status, fleet.text = status, text
            found = await outcome(engine, ask())
            assert type(found) is kind
            assert text in str(found)

    asyncio.run(scenario())


def put(value: object, *path: str | int) -> Callable[[Any], None]:
    """Change one field of an answer; without a value, drop it."""

    def alter(answer: Any) -> None:
        for key in path[:-1]:
            answer = answer[key]
        if value is ...:
            del answer[path[-1]]
        else:
            answer[path[-1]] = value

    return alter


FIRST = ("choices", 0)
TOP = (*FIRST, "logprobs", "top_logprobs")


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (put(..., "choices"), "choices: Field required"),
        (put(None, "choices"), "choices: "),
        (put([], "choices"), "choices: 0, or misnumbered, not 1"),
        (put(1, *FIRST, "index"), "choices: 1, or misnumbered, not 1"),
        (put(..., *FIRST, "token_ids"), r"choices\.0\.token_ids: Field required"),
        (put(None, *FIRST, "token_ids"), r"choices\.0\.token_ids: "),
        (put([], *FIRST, "token_ids"), r"choices\.0\.token_ids: "),
        (put([-1], *FIRST, "token_ids"), r"choices\.0\.token_ids\.0: "),
        (put(["2"], *FIRST, "token_ids"), r"choices\.0\.token_ids\.0: "),
        (put([2] * 99, *FIRST, "token_ids"), r"choices\.0\.logprobs\.token_logprobs: \d+ for 99 token_ids"),
        (put(None, *FIRST, "logprobs"), r"choices\.0\.logprobs: "),
        (put(None, *FIRST, "logprobs", "token_logprobs"), r"token_logprobs: "),
        (put(float("nan"), *FIRST, "logprobs", "token_logprobs", 0), r"token_logprobs\.0: "),
        (put(float("-inf"), *FIRST, "logprobs", "token_logprobs", 0), r"token_logprobs\.0: "),
        (put(-9999.0, *FIRST, "logprobs", "token_logprobs", 0), r"token_logprobs\.0: "),
        (put(3.5, *FIRST, "logprobs", "token_logprobs", 0), r"token_logprobs\.0: "),
        (put(None, *FIRST, "logprobs", "token_logprobs", 0), r"token_logprobs\.0: "),
        (put([], *TOP), r"top_logprobs: 0 for \d+ token_ids"),
        (put({"the": -1.0}, *TOP, 0), r"top_logprobs\.0"),
        (put("abort", *FIRST, "finish_reason"), r"choices\.0\.finish_reason: "),
        (put(None, *FIRST, "finish_reason"), r"choices\.0\.finish_reason: "),
    ],
)
@pytest.mark.parametrize("mode", ["greedy", "beam", "sample"])
def test_a_malformed_answer_fails_by_the_name_of_the_field(
    folder: Path, alter: Callable[[Any], object], message: str, mode: Any
) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            fleet.alter = alter
            with pytest.raises(EngineFailedError, match=message):
                await engine.generate(ask(mode=mode))

    asyncio.run(scenario())


def written(token_ids: list[int], finish_reason: str) -> Callable[[Any], None]:
    def alter(answer: Any) -> None:
        logprobs = {"token_logprobs": [-1.0] * len(token_ids), "top_logprobs": [{}] * len(token_ids)}
        answer["choices"][0] |= {
            "token_ids": token_ids,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (written([2, 3], "stop"), "finish_reason: stop, with the tokens"),
        (written([2, END_ID, 3, END_ID], "stop"), "finish_reason: stop, with the tokens"),
        (written([2] * 7 + [END_ID], "length"), "finish_reason: length, with the tokens"),
        (written([VOCABULARY, END_ID], "stop"), "token_ids: 12 is not in the vocabulary"),
    ],
)
def test_tokens_that_cannot_be_fail(folder: Path, alter: Callable[[Any], object], message: str) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            fleet.alter = alter
            with pytest.raises(EngineFailedError, match=message):
                await engine.generate(ask(mode="greedy"))

    asyncio.run(scenario())


def test_an_answer_cut_by_a_smaller_window_is_too_long(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            fleet.alter = written([2] * 5, "length")
            with pytest.raises(InputTooLongError, match="room for 5 of 8 tokens"):
                await engine.generate(ask(mode="greedy"))

    asyncio.run(scenario())


def test_a_beam_fails_where_fewer_tokens_come_than_it_needs(folder: Path) -> None:
    def five(answer: Any) -> None:
        for choice in answer["choices"]:
            choice["logprobs"]["top_logprobs"] = [
                dict([*top.items()][:5]) for top in choice["logprobs"]["top_logprobs"]
            ]

    async def scenario() -> None:
        async with started(folder, Fleet(alter=five)) as engine:
            with pytest.raises(EngineFailedError, match="top_logprobs: 5 tokens, where 8 were asked for"):
                await engine.generate(ask())

    asyncio.run(scenario())


def test_an_answer_that_is_no_json_fails(folder: Path) -> None:
    async def scenario() -> None:
        async def html(request: httpx.Request) -> httpx.Response:
            return (
                httpx.Response(200, text="<html>")
                if "completions" in str(request.url)
                else await fleet(request)
            )

        fleet = Fleet()
        async with started(folder, fleet) as engine:
            engine._client = httpx.AsyncClient(transport=httpx.MockTransport(html))
            with pytest.raises(EngineFailedError, match="body: Invalid JSON"):
                await engine.generate(ask())

    asyncio.run(scenario())


async def under_way(engine: OpenaiEngine, fleet: Fleet, count: int) -> list[asyncio.Task[Any]]:
    """Requests that the fleet has and does not answer."""
    fleet.gate = asyncio.Event()
    tasks = [asyncio.create_task(engine.generate(ask())) for _ in range(count)]
    for _ in tasks:
        await fleet.arrived.acquire()
    return tasks


def test_cancelling_hangs_up(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            tasks = await under_way(engine, fleet, 3)
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            assert fleet.cancelled == 1
            assert fleet.gate is not None
            fleet.gate.set()
            assert len(await asyncio.gather(*tasks[1:])) == 2

    asyncio.run(scenario())


def test_closing_ends_what_runs_and_what_comes(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet) as engine:
            tasks = await under_way(engine, fleet, 3)
            await engine.close()
            for task in tasks:
                with pytest.raises(EngineUnavailableError, match="closed"):
                    await task
            assert fleet.cancelled == 3
            await engine.close()
            with pytest.raises(EngineUnavailableError, match="not running"):
                await engine.generate(ask())

    asyncio.run(scenario())


def test_starting_twice_starts_once(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        engine = make_engine(folder, fleet)
        await asyncio.gather(engine.start(), engine.start())
        assert len([r for r in fleet.asked if r.method == "GET"]) == 1
        await engine.close()

    asyncio.run(scenario())


def test_an_adapter_is_loaded_again_when_forgotten_and_unloaded_at_the_end(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        options = {"model": "tuned", "adapter_path": "/adapters/tuned"}
        async with started(folder, fleet, **options) as engine:
            assert fleet.bodies("/load_lora_adapter") == [
                {"lora_name": "tuned", "lora_path": "/adapters/tuned"}
            ]
            async with started(folder, fleet, **options):  # which finds it loaded, and leaves it
                pass
            assert fleet.adapters == {"tuned"}
            fleet.adapters.clear()
            await engine.generate(ask())
            assert fleet.adapters == {"tuned"}
        assert not fleet.adapters

    asyncio.run(scenario())


def test_an_adapter_the_fleet_cannot_load_again_is_said(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet, model="tuned", adapter_path="/a") as engine:
            fleet.adapters.clear()
            fleet.loads_adapters = False
            with pytest.raises(EngineUnavailableError, match="--enable-lora"):
                await engine.generate(ask())
        async with started(folder, fleet) as engine:
            fleet.served.clear()
            with pytest.raises(EngineUnavailableError, match="`default` does not exist"):
                await engine.generate(ask())

    asyncio.run(scenario())


def test_an_unload_that_fails_does_not_matter(folder: Path) -> None:
    async def scenario() -> None:
        fleet = Fleet()
        async with started(folder, fleet, model="tuned", adapter_path="/a"):
            fleet.raises = httpx.ConnectError("gone")

    asyncio.run(scenario())
