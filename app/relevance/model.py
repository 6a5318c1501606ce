"""The relevance model of a folder, on ONNX Runtime."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from typing import TYPE_CHECKING

import numpy as np

from app.errors import RelevanceError
from app.registry.checkpoint import read_manifest, verify_file
from app.relevance.batching import Batcher
from app.relevance.graph import GraphHead, open_session
from app.relevance.manifest import RelevanceManifest
from app.relevance.texts import Texts
from app.rewrite.cache import LruCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from app.relevance.base import Content, Floats
    from app.relevance.manifest import Head
    from app.relevance.texts import Row


class OnnxRelevance:
    """A `Relevance` over the folder `path`; its files are the manifest's, or it is refused.

    Embeddings of documents are remembered, for the same documents are candidates of many queries.

    Args:
        path: a folder with `manifest.json`.
        threads: of one run; runs follow one another.
        provider: ONNX Runtime's name of where to compute.
        max_rows: rows that may wait; a caller beyond that is refused.
        max_known: document embeddings to remember; each takes 4 bytes a dimension and a few hundred.

    Raises:
        CheckpointError: a file is missing or altered, or a graph is not what the manifest says; the message
            says what is missing.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
        max_rows: int = 4096,
        max_known: int = 10_000,
    ) -> None:
        self.manifest = read_verified(path)
        self._heads = {
            kind: GraphHead(
                open_session(path / head.file, head.output, threads=threads, provider=provider),
                head,
                kind=kind,
                image_dim=self.manifest.image_dim,
            )
            for kind, head in (("embedding", self.manifest.embedding), ("score", self.manifest.score))
            if head is not None
        }
        self._texts = Texts.of_file(path / self.manifest.tokenizer)
        self._known: LruCache[bytes, Floats] = LruCache(
            max_entries=max_known, ttl_s=float("inf"), clock=lambda: 0.0
        )
        self._batcher = Batcher(max_rows=max_rows)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what its numbers are a function of."""
        return self.manifest.digest

    @property
    def image_dim(self) -> int:
        """Floats of an image embedding; 0 where the model reads none."""
        return self.manifest.image_dim

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        """See `Relevance.embed_queries`."""
        head = self._head("embedding", self.manifest.embedding)
        return await self._run("embedding", lambda: self._texts.queries(texts, head), len(texts))

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        """See `Relevance.embed_documents`."""
        head = self._head("embedding", self.manifest.embedding)
        named = {document: _name_of(document) for document in documents}
        known = {document: self._known.get(name) for document, name in named.items()}
        new = [document for document, vector in known.items() if vector is None]
        if new:
            found = await self._run("embedding", lambda: self._texts.documents(new, head), len(new))
            for document, vector in zip(new, found, strict=True):
                # A copy: a row alone would keep all of `found` for as long as its document is asked for.
                self._known.put(named[document], vector.copy())
                known[document] = vector
        return np.array([known[document] for document in documents], np.float32)

    def similarity(self, query: Floats, documents: Floats) -> list[float]:
        """See `Relevance.similarity`."""
        head = self._head("embedding", self.manifest.embedding)
        # BLAS may read beyond a short row, and raise a flag for what is no part of it.
        with np.errstate(invalid="ignore"):
            cosines = documents @ query
        return [head.calibration.read(float(cosine)) for cosine in cosines]

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        """See `Relevance.score`."""
        head = self._head("score", self.manifest.score)
        found = await self._run("score", lambda: self._texts.pairs(query, documents, head), len(documents))
        return [head.calibration.read(float(raw)) for raw in found.reshape(len(documents))]

    async def close(self) -> None:
        """End the thread; whoever waits gets a RelevanceError."""
        await asyncio.to_thread(self._batcher.close)

    async def _run(self, kind: str, make_rows: Callable[[], list[Row]], size: int) -> Floats:
        if size == 0:
            return np.zeros((0, 0), np.float32)
        return await self._batcher.run(self._heads[kind], make_rows, size)

    def _head(self, kind: str, head: Head | None) -> Head:
        if head is None:
            raise RelevanceError(f"{self.manifest.model_id} has no head for {kind}")
        return head


def _name_of(document: Content) -> bytes:
    """By which it is remembered: a document may be of some kilobytes, and its image of as many again."""
    text = document.text.encode("utf-8", "surrogatepass")
    # The text's length says where the image begins: a text may have any character, those of floats too.
    image = array("d", document.image or ()).tobytes()
    return hashlib.blake2b(b"%d " % len(text) + text + image, digest_size=16).digest()


def read_verified(path: Path) -> RelevanceManifest:
    """Read the folder's manifest and verify its files. Raises CheckpointError."""
    manifest = read_manifest(path, RelevanceManifest, "the folder of a relevance model")
    for name, entry in manifest.files.items():
        verify_file(path / name, entry)
    return manifest
