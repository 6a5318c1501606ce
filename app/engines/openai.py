"""The openai engine: a remote vLLM fleet behind the OpenAI completions API, over HTTP.

`vllm serve` itself, or production-stack, llm-d, Ray Serve LLM in front of many. Token ids go out and come
back; text is this service's business. A request that is taken back closes its connection, and vLLM aborts.

vLLM has a beam search of its own (`use_beam_search`), which is not used. Measured on 0.32.0 (5 M parameters,
one core, 100 queries, width 4): it takes 490 ms where one-token steps under the rule of `decoding.Beam` take
170 ms over the same HTTP, because it always goes on to `max_tokens`; those stop when no row can win any more,
after 8 steps in the median. Nor is its list ours: it also counts an end token that is not among a step's
best (1 query of 100 differed), and it knows no `stop_token_ids`. Greedy look-ahead halves the round trips and
saves no time. All rows of a step travel as one request of many prompts, 30 % faster than one request each; a
router that reads only one prompt of token ids is found out at the start (llm-d's: issue 2835 of
gateway-api-inference-extension).

An unreachable fleet is `EngineUnavailableError`, never `EngineDeadError`: there is nothing here to start
again, a new engine would meet the same fleet, and the breaker's probes find it when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from app.engines.base import Generation, GenerationRequest
from app.engines.decoding import Beam, Hypothesis, make_decoder, spread
from app.engines.openai_wire import Models, choices_of, detail, mapped, parsed, refusal
from app.engines.text import completions_of, encode_prompt, read_tokenizer
from app.errors import (
    CheckpointError,
    EngineError,
    EngineFailedError,
    EngineUnavailableError,
    InputTooLongError,
)

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from app.engines.openai_wire import Card, Choice

# uvicorn, and so vLLM, closes a connection after 5 s of idleness: one reused at that very moment would fail.
KEEP_ALIVE_S = 2.0
# Shutting down waits no longer than this for a fleet to forget an adapter.
UNLOAD_S = 5.0
# What one step, computed twice, may differ by in its log-probability, with room for bfloat16.
REPEATED = 0.05
# A fleet's `generation_config` may set any of these: they are set back to what changes no distribution. Only
# the checkpoint's own end token ends a completion; it goes along in `stop_token_ids`.
NEUTRAL = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "ignore_eos": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,  # the keys of `top_logprobs`; as text, two tokens can look the same
}


class OpenaiEngine:
    """An `Engine` over a fleet that serves the checkpoint in `checkpoint_dir` as `model`.

    That it does serve that one is believed here; `app.engines.proof` asks. Log-probabilities are as exact as
    the fleet's arithmetic, and samples a function of their seed as far as its kernels do not depend on the
    batch. It draws at temperatures from 0.01 to 2. A beam of width w needs `--max-logprobs` of 2 w, which is
    20 unless set.

    Args:
        checkpoint_dir: a Hugging Face style folder with `tokenizer.json`.
        base_url: the fleet's, with or without `/v1`.
        model: the name under which the fleet serves it.
        weights_digest: SHA-256 (hex) of the weights; every answer carries it.
        max_model_tokens: prompt plus completion.
        beam_width: rows of a beam; a request for more completions than that widens it.
        api_key: sent as a bearer token.
        adapter_path: a LoRA adapter's folder, as the fleet sees it: loaded as `model` at the start, again
            when a restarted fleet has forgotten it, and unloaded at the end. That reaches one `vllm serve`;
            behind a router, let the fleet load its adapters, and leave this out.
        timeout_s: seconds without a byte of the answer after which a call fails; callers have deadlines.
        connect_timeout_s: seconds to connect, and to wait for one of `max_connections`.
        max_connections: calls under way at once; a request that waits in vain for one finds the engine busy.
        transport: httpx's, for tests.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        *,
        base_url: str,
        model: str,
        weights_digest: str,
        max_model_tokens: int = 256,
        beam_width: int = 4,
        api_key: str | None = None,
        adapter_path: str | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 1.0,
        max_connections: int = 100,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._dir = checkpoint_dir
        self._url = base_url.rstrip("/").removesuffix("/v1").rstrip("/") + "/v1/"
        self._model = model
        self._weights_digest = weights_digest
        self._max_model_tokens = max_model_tokens
        self._beam_width = beam_width
        self._api_key = (api_key or "").strip()  # one that was read from a file ends with a line break
        self._adapter_path = adapter_path
        self._loaded_adapter = False
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._max_connections = max_connections
        self._transport = transport
        self._many_prompts = True
        self._starting = asyncio.Lock()
        self._running: set[asyncio.Timeout] = set()
        self._client: httpx.AsyncClient | None = None

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over the weights that answer now."""
        return self._weights_digest

    async def start(self) -> None:
        """Find the model at the fleet and have it answer; does nothing when started already.

        Raises EngineUnavailableError where httpx, the tokenizer, the fleet or the model is missing.
        """
        async with self._starting:
            if self._client is not None:
                return
            try:
                self._client = await asyncio.to_thread(self._load)
                await self._meet()
            except (CheckpointError, EngineError) as error:
                await self._shut_down()
                raise EngineUnavailableError(f"{self._url}: {error}") from error
            except BaseException:
                await self._shut_down()
                raise

    async def close(self) -> None:
        """Hang up; requests that run are answered EngineUnavailableError."""
        async with self._starting:
            await self._shut_down()

    async def generate(self, request: GenerationRequest) -> Generation:
        """Complete one prompt; see `Engine.generate`. Cancelling closes the connection: vLLM aborts it."""
        if self._client is None:
            raise EngineUnavailableError("the engine is not running")
        prompt = encode_prompt(self._tokenizer, request, max_model_tokens=self._max_model_tokens)
        if not prompt:
            raise EngineFailedError("the prompt has no tokens")
        until_closed = asyncio.timeout(None)
        try:
            async with until_closed:
                self._running.add(until_closed)
                hypotheses = await self._complete(prompt, request)
        except TimeoutError as error:
            raise EngineUnavailableError("the engine was closed") from error
        finally:
            self._running.discard(until_closed)
        largest = max(token for hypothesis in hypotheses for token in hypothesis.token_ids)
        if largest >= self._tokenizer.get_vocab_size():
            raise EngineFailedError(f"token_ids: {largest} is not in the vocabulary")
        completions = completions_of(self._tokenizer, hypotheses)
        return Generation(completions, self._weights_digest, prompt_tokens=len(prompt))

    def _load(self) -> httpx.AsyncClient:
        try:
            import httpx  # noqa: PLC0415 -- only where it is installed
        except ImportError as error:
            raise EngineUnavailableError(f"no httpx ({error}): install corewrite[openai]") from error
        self._tokenizer, self._end_id = read_tokenizer(self._dir)
        if not (self._api_key.isascii() and self._api_key.isprintable()):
            raise EngineUnavailableError("the API key has characters that no header can carry")
        return httpx.AsyncClient(
            headers={"authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            timeout=httpx.Timeout(
                self._timeout_s, connect=self._connect_timeout_s, pool=self._connect_timeout_s
            ),
            limits=httpx.Limits(max_connections=self._max_connections, keepalive_expiry=KEEP_ALIVE_S),
            transport=self._transport,
        )

    async def _served(self) -> dict[str, Card]:
        return {card.id: card for card in parsed(Models, await self._call("GET", "models")).data}

    async def _meet(self) -> None:
        """See that the model is served, and as this engine needs it."""
        served = await self._served()
        if self._model not in served and self._adapter_path is not None:
            await self._load_adapter()
            served = await self._served()
        if self._model not in served:
            raise EngineUnavailableError(f"it serves {', '.join(served) or 'nothing'}, not {self._model}")
        window = served[self._model].max_model_len
        if window is not None and window < self._max_model_tokens:
            raise EngineUnavailableError(
                f"its window of {window} tokens is smaller than ours of {self._max_model_tokens}"
            )
        probe = {"max_tokens": 1, "logprobs": 1}
        [cold] = await self._ask([[self._end_id]], **probe, temperature=0.0)
        [hot] = await self._ask([[self._end_id]], **probe, temperature=2.0, seed=0)
        one, other = (max(choice.logprobs.top_logprobs[0].values()) for choice in (cold, hot))
        if abs(one - other) > REPEATED:
            raise EngineUnavailableError(
                "its log-probabilities depend on the temperature: it needs --logprobs-mode raw_logprobs"
            )
        try:
            await self._ask([[self._end_id]] * 2, **probe, temperature=0.0)
            self._many_prompts = True
        except EngineFailedError:
            self._many_prompts = False

    async def _shut_down(self) -> None:
        client, self._client = self._client, None
        running, self._running = self._running, set()
        for until_closed in running:
            until_closed.reschedule(0.0)  # which is long past
        if client is None:
            return
        if self._loaded_adapter:
            self._loaded_adapter = False
            with contextlib.suppress(Exception):  # a fleet that cannot be told has forgotten it by itself
                body = {"lora_name": self._model}
                await client.post(self._url + "unload_lora_adapter", json=body, timeout=UNLOAD_S)
        await client.aclose()

    async def _complete(self, prompt: list[int], request: GenerationRequest) -> list[Hypothesis]:
        try:
            decoder = make_decoder(request, end_id=self._end_id, beam_width=self._beam_width)
        except ValueError as error:
            raise EngineFailedError(str(error)) from error
        if isinstance(decoder, Beam):
            return await self._beam(prompt, decoder)
        drawn: dict[str, Any] = {"temperature": 0.0}
        if request.mode == "sample":
            drawn = {
                "n": request.num_completions,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "seed": spread(request.seed),
            }
        choices = await self._ask([prompt], max_tokens=request.max_tokens, logprobs=0, **drawn)
        hypotheses = [self._hypothesis(choice, request.max_tokens) for choice in choices]
        return sorted(hypotheses, key=lambda hypothesis: -hypothesis.logprob)

    def _hypothesis(self, choice: Choice, max_tokens: int) -> Hypothesis:
        token_ids, finish = tuple(choice.token_ids), choice.finish_reason
        if finish == "length" and len(token_ids) < max_tokens:
            # vLLM lowers `max_tokens` to what its window has left.
            raise InputTooLongError(
                f"the fleet's window has room for {len(token_ids)} of {max_tokens} tokens"
            )
        if (self._end_id in token_ids[:-1]) or (token_ids[-1] == self._end_id) != (finish == "stop"):
            raise EngineFailedError(f"finish_reason: {finish}, with the tokens {token_ids}")
        return Hypothesis(token_ids, sum(choice.logprobs.token_logprobs), finish)

    async def _beam(self, prompt: list[int], beam: Beam) -> list[Hypothesis]:
        rows: list[list[int]] = [[]]
        while rows:
            found = await self._next_tokens([prompt + row for row in rows], beam.candidates)
            rows = [[*rows[row], token] for row, token in beam.advance_sparse(found)]
        return beam.results()

    async def _next_tokens(self, rows: list[list[int]], count: int) -> list[dict[int, float]]:
        """The log-probabilities of the `count` most probable next tokens of each row."""
        calls = [rows] if self._many_prompts else [[row] for row in rows]
        answers = await asyncio.gather(
            *(self._ask(prompts, max_tokens=1, temperature=0.0, logprobs=count) for prompts in calls)
        )
        found = [choice.logprobs.top_logprobs[0] for choices in answers for choice in choices]
        fewest = min(len(tokens) for tokens in found)
        if fewest < min(count, self._tokenizer.get_vocab_size()):
            raise EngineFailedError(f"top_logprobs: {fewest} tokens, where {count} were asked for")
        return found

    async def _ask(self, prompts: list[list[int]], **fields: Any) -> list[Choice]:
        """The choices for all prompts, in order."""
        body = NEUTRAL | {
            "model": self._model,
            "prompt": prompts if len(prompts) > 1 else prompts[0],
            "stop_token_ids": [self._end_id],
            **fields,
        }
        answer = await self._call("POST", "completions", body)
        return choices_of(answer, count=len(prompts) * fields.get("n", 1))

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        response = await self._send(method, path, body)
        if response.status_code == HTTPStatus.NOT_FOUND and self._adapter_path is not None:
            await self._load_adapter()  # a fleet that was restarted has forgotten it
            response = await self._send(method, path, body)
        if response.status_code != HTTPStatus.OK:
            raise refusal(response.status_code, response.text)
        return response.content

    async def _load_adapter(self) -> None:
        body = {"lora_name": self._model, "lora_path": self._adapter_path}
        response = await self._send("POST", "load_lora_adapter", body)
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise EngineUnavailableError(
                f"no adapter {self._adapter_path}, or none is loaded without --enable-lora and "
                f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True: {detail(response.text)}"
            )
        if response.status_code != HTTPStatus.OK and "already been loaded" not in response.text:
            raise refusal(response.status_code, response.text)
        self._loaded_adapter = True

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        if self._client is None:
            raise EngineUnavailableError("the engine is not running")
        try:
            return await self._client.request(method, self._url + path, json=body)
        except Exception as error:
            raise mapped(error) from error
