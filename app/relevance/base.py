"""What a relevance model is to the rest of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Content:
    """What a document says: its text, and where it has one the embedding of its image.

    The image is a tuple of floats, of as many as the model's `image_dim`.
    """

    text: str
    image: tuple[float, ...] | None = None


class Relevance(Protocol):
    """Two heads over one model. Any number of callers at a time; they share batches.

    Every method raises `RelevanceError` where the model cannot answer, and is cancelled without loss to
    others.
    """

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what its numbers are a function of."""

    @property
    def image_dim(self) -> int:
        """Floats of an image embedding; 0 where the model reads none."""

    async def embed_queries(self, texts: Sequence[str]) -> Floats:
        """Embeddings for dot products, [texts, dim], rows of length 1."""

    async def embed_documents(self, documents: Sequence[Content]) -> Floats:
        """The same for documents."""

    def similarity(self, query: Floats, documents: Floats) -> list[float]:
        """For rawrank: s(q, d) in (0, 1] of one query's embedding, [dim], and each document's, [n, dim]."""

    async def score(self, query: str, documents: Sequence[Content]) -> list[float]:
        """For finerank: s(q, d) in (0, 1], read together; one per document, in their order."""
