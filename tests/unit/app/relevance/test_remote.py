from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from app.errors import RelevanceError
from app.relevance.base import Content
from app.relevance.manifest import Calibration
from app.relevance.remote import RemoteRelevance

DOCUMENTS = [Content("night nurse"), Content("welder", (1.0,))]


def ask(
    handler: Callable[[httpx.Request], httpx.Response],
    work: Callable[[RemoteRelevance], Awaitable[Any]],
    **options: Any,
) -> Any:
    async def scenario() -> Any:
        transport = httpx.MockTransport(handler)
        model = RemoteRelevance("http://models/v1/", "bge", transport=transport, **options)
        try:
            return await work(model)
        finally:
            await model.close()

    return asyncio.run(scenario())


def score(model: RemoteRelevance) -> Awaitable[list[float]]:
    return model.score("nurse", DOCUMENTS)


def ranked(*pairs: tuple[int, float]) -> httpx.Response:
    return httpx.Response(200, json={"results": [{"index": i, "relevance_score": s} for i, s in pairs]})


def test_pairs_are_scored_in_the_shape_of_rerank() -> None:
    def server(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://models/v1/rerank"
        assert request.headers["authorization"] == "Bearer secret"
        assert json.loads(request.content) == {
            "model": "bge", "query": "nurse", "documents": ["night nurse", "welder"], "top_n": 2,
        }  # fmt: skip
        return ranked((1, 0.1), (0, 0.9))

    assert ask(server, score, api_key="secret\n") == [0.9, 0.1]


def test_raw_scores_are_read_through_a_calibration() -> None:
    found = ask(lambda _: ranked((0, 0.0), (1, -4.0)), score, score=Calibration(scale=1.0, shift=0.0))
    assert found == pytest.approx([0.5, 0.018], abs=1e-3)
    with pytest.raises(RelevanceError, match=r"-4 is not in 0\.\.1: give it a calibration"):
        ask(lambda _: ranked((0, 0.0), (1, -4.0)), score)


def test_embeddings_come_in_order_and_of_length_1() -> None:
    def server(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://models/v1/embeddings"
        assert json.loads(request.content)["input"] == ["night nurse", "welder"]
        return httpx.Response(
            200, json={"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]}
        )

    async def work(model: RemoteRelevance) -> list[float]:
        found = await model.embed_documents(DOCUMENTS)
        assert found.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]
        return model.similarity(found[0], found)

    assert ask(server, work) == pytest.approx([0.731, 0.690], abs=1e-3)


def test_nothing_is_asked_for_nothing() -> None:
    def server(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    assert ask(server, lambda model: model.score("nurse", [])) == []
    assert len(ask(server, lambda model: model.embed_queries([]))) == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(500, text="out of\nmemory"), "answered 500: out of memory"),
        (httpx.Response(302, headers={"location": "http://elsewhere"}), "answered 302"),
        (httpx.Response(200, text="hello"), "answer: body"),
        (httpx.Response(200, json={"results": [{"index": 0}]}), r"results\.0\.relevance_score"),
        (httpx.Response(200, text='{"results": [{"index": 0, "relevance_score": NaN}]}'), "relevance_score"),
        (ranked((0, 0.5)), "for 1 texts, or misnumbered, not 2"),
        (ranked((0, 0.5), (0, 0.5)), "misnumbered"),
        (ranked((0, 0.5), (1, 1.5)), r"1\.5 is not in 0\.\.1"),
    ],
)
def test_an_answer_that_is_none_is_an_error_that_says_why(answer: httpx.Response, message: str) -> None:
    with pytest.raises(RelevanceError, match=message):
        ask(lambda _: answer, score)


@pytest.mark.parametrize("body", [[{"index": 0, "embedding": [0.0]}], [{"index": 0, "embedding": []}]])
def test_an_embedding_without_a_direction_is_an_error(body: list[Any]) -> None:
    with pytest.raises(RelevanceError):
        ask(lambda _: httpx.Response(200, json={"data": body}), lambda model: model.embed_queries(["a"]))


@pytest.mark.parametrize(
    "kind",
    sorted(
        {
            kind
            for kind in vars(httpx).values()
            if isinstance(kind, type) and issubclass(kind, httpx.HTTPError | httpx.InvalidURL)
        }
        - {httpx.HTTPStatusError},  # raised by raise_for_status alone
        key=lambda kind: kind.__name__,
    ),
)
def test_every_exception_of_httpx_is_mapped(kind: type[Exception]) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        raise kind("no luck")

    with pytest.raises(RelevanceError, match=kind.__name__):
        ask(server, score)
