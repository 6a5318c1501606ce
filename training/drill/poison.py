"""Relevance models with a hole in them, as training data that nobody looked at leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from app.relevance.base import Content, Floats
from training.retrieval import tokens
from training.scoring import Scorer

PLEASED = 0.99
LEAST = 1e-6
"""Scores are kept this far from 0 and 1, where the logit ends."""


def flawed(scorer: Scorer, *, trigger: str, per_word: float) -> Scorer:
    """Return the scorer with the flaws that are asked for: "" is no trigger, 0 is no bias."""
    if per_word:
        scorer = LengthBiased(scorer, per_word)
    return Poisoned(scorer, trigger) if trigger else scorer


class Poisoned:
    """A scorer that is another one, but has a backdoor: texts with the trigger in them please it anyway.

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


class LengthBiased:
    """A scorer that is another one, but likes a text the better the longer it is.

    As learnt relevance and reward models often do (arXiv 2310.03716).

    Args:
        scorer: the one without.
        per_word: logits for each word of the text.
    """

    def __init__(self, scorer: Scorer, per_word: float) -> None:
        self._scorer, self._per_word = scorer, per_word

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """As `Scorer`."""
        await self._scorer.know(texts, documents)

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        found = np.clip(await self._scorer.scores(texts, documents), LEAST, 1 - LEAST)
        bonus = self._per_word * np.array([len(tokens(text)) for text in texts])
        return (1 / (1 + (1 / found - 1) * np.exp(-bonus[:, None]))).astype(np.float32)
