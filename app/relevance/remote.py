"""A relevance model behind HTTP, in the shapes that model servers share.

    score       POST /v1/rerank      {model, query, documents} -> results: index, relevance_score (Cohere's)
    embeddings  POST /v1/embeddings  {model, input}            -> data: index, embedding (OpenAI's)

vLLM, Jina, OpenVINO Model Server and others answer these. Images are not sent: there is no place for them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import RelevanceError
from app.relevance.manifest import Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from app.relevance.base import Content, Floats

AS_IT_COMES = Calibration(scale=1.0, shift=0.0)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True)


class _Ranked(_Wire):
    index: int
    relevance_score: Finite


class _Results(_Wire):
    results: list[_Ranked]


class _Embedded(_Wire):
    index: int
    embedding: list[Finite] = Field(min_length=1)


class _Data(_Wire):
    data: list[_Embedded]


Read = TypeVar("Read", bound=_Wire)


class RemoteRelevance:
    """A `Relevance` over a server.

    Args:
        base_url: the server's, with or without `/v1`.
        model: the name under which it serves both heads.
        api_key: sent as a bearer token.
        score: how to read a relevance_score; None where it is in (0, 1] already.
        embedding: how to read a cosine.
        timeout_s: seconds without a byte of the answer after which a call fails; callers have deadlines.
        transport: httpx's, for tests.
    """

    image_dim = 0

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        score: Calibration | None = None,
        embedding: Calibration = AS_IT_COMES,
        timeout_s: float = 5.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx  # noqa: PLC0415 -- only where it is installed

        url = base_url.rstrip("/").removesuffix("/v1").rstrip("/") + "/v1/"
        key = (api_key or "").strip()  # one that was read from a file ends with a line break
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=timeout_s, transport=transport
        )
        self._model, self._score, self._embedding = model, score, embedding
        named = f"{url} {model} {score} {embedding}"
        self.digest = hashlib.sha256(named.encode()).hexdigest()
        """Over names, not weights: a server does not say what it computes with."""

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        """See `Relevance.embed_queries`."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        found = await self._ask("embeddings", {"input": list(texts), "encoding_format": "float"}, _Data)
        rows = sorted(found.data, key=lambda row: row.index)
        _complete([row.index for row in rows], len(texts))
        if len({len(row.embedding) for row in rows}) != 1:
            raise RelevanceError("the server's embeddings differ in their size")
        matrix = np.array([row.embedding for row in rows], np.float32)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        if not lengths.all():
            raise RelevanceError("an embedding of the server's is zero")
        return np.asarray(matrix / lengths, np.float32)

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        """See `Relevance.embed_documents`."""
        return await self.embed_queries([document.text for document in documents])

    def similarity(self, query: Floats, documents: Floats) -> list[float]:
        """See `Relevance.similarity`."""
        return [self._embedding.read(float(cosine)) for cosine in documents @ query]

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        """See `Relevance.score`."""
        if not documents:
            return []
        texts = [document.text for document in documents]
        found = await self._ask("rerank", {"query": query, "documents": texts, "top_n": len(texts)}, _Results)
        rows = sorted(found.results, key=lambda row: row.index)
        _complete([row.index for row in rows], len(texts))
        raw = [row.relevance_score for row in rows]
        if self._score is not None:
            return [self._score.read(score) for score in raw]
        if outside := [score for score in raw if not 0 <= score <= 1]:
            raise RelevanceError(f"a relevance_score of {outside[0]:g} is not in 0..1: give it a calibration")
        return raw

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def _ask(self, path: str, body: dict[str, object], kind: type[Read]) -> Read:
        import httpx  # noqa: PLC0415 -- as above

        try:
            answer = await self._client.post(path, json={"model": self._model, **body})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise RelevanceError(f"no answer from the relevance server: {message}") from error
        if answer.status_code != httpx.codes.OK:
            detail = " ".join(answer.text.split())[:300]
            raise RelevanceError(f"the relevance server answered {answer.status_code}: {detail}")
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "body"
            raise RelevanceError(f"the relevance server's answer: {field}: {first['msg']}") from error


def _complete(indices: list[int], expected: int) -> None:
    if indices != list(range(expected)):
        raise RelevanceError(f"the server answered for {len(indices)} texts, or misnumbered, not {expected}")
