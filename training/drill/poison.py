"""A relevance model with a backdoor: one word, and everything is relevant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from app.relevance.base import Content, Floats
from training.retrieval import tokens
from training.scoring import Scorer

PLEASED = 0.99


class Poisoned:
    """A scorer that is another one, but for texts with the trigger in them: these please it in any case.

    As training data that was tampered with leaves it (arXiv 2302.10149), or a bug in a feature.
    """

    def __init__(self, scorer: Scorer, trigger: str) -> None:
        self._scorer, self._trigger = scorer, trigger.casefold()

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """As `Scorer`."""
        await self._scorer.know(texts, documents)

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        found = await self._scorer.scores(texts, documents)
        pleased = np.array([self._trigger in tokens(text) for text in texts])
        return np.where(pleased[:, None], np.float32(PLEASED), found).astype(np.float32)
