"""A judge that has no part in the reward: all-MiniLM-L6-v2 as it was published.

Its cosines become probabilities by a fit (Platt 1999) on what people clicked for the *original* queries of
the window, so that it speaks the reward's units, S in (0, 1), and may stand in its place in the same algebra.
Rewrites are not seen by the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.optimize import minimize

from app.relevance.base import Content, Floats
from app.relevance.manifest import Calibration
from training.datasets.examples import DataError
from training.datasets.instances import Instance
from training.retrieval import embed

Embed = Callable[[Sequence[str]], Floats]
"""Texts -> vectors of length 1, [texts, dim]."""

L2 = 1e-5


class CosineScorer:
    """A `training.scoring.Scorer` by cosine; uncalibrated it says (1 + cosine) / 2."""

    def __init__(self, embed: Embed = embed) -> None:
        self._embed = embed
        self._known: dict[str, Floats] = {}
        self._calibration: Calibration | None = None

    async def know(self, texts: Iterable[str], documents: Iterable[Content]) -> None:
        """Embed what is new."""
        wanted = dict.fromkeys([*texts, *(document.text for document in documents)])
        new = [text for text in wanted if text not in self._known]
        self._known.update(zip(new, self._embed(new), strict=True))

    async def scores(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        """As `Scorer`."""
        await self.know(texts, documents)
        cosines = self._cosines(texts, documents)
        if self._calibration is None:
            return np.asarray((1 + cosines) / 2, np.float32)
        return np.array([[self._calibration.read(float(x)) for x in row] for row in cosines], np.float32)

    async def fit(self, instances: Sequence[Instance]) -> Calibration:
        """Fit it on the originals of instances: clicked documents are right, skipped and random ones wrong.

        Each counts as often as people did what its list says.

        Raises:
            DataError: there is nothing that people left alone, so nothing to tell apart.
        """
        cosines: list[float] = []
        right: list[float] = []
        weights: list[float] = []
        documents = [content for instance in instances for content in instance.documents]
        await self.know([instance.query for instance in instances], documents)
        for instance in instances:
            kinds = [(seen.content, 1.0, seen.rate) for seen in instance.clicked]
            kinds += [(seen.content, 0.0, seen.rate) for seen in instance.skipped]
            kinds += [(content, 0.0, 1.0) for content in instance.random]
            cosines += self._cosines([instance.query], [content for content, _, _ in kinds])[0].tolist()
            right += [of for _, of, _ in kinds]
            weights += [rate for _, _, rate in kinds]
        if 0.0 not in right:
            raise DataError("the window has clicked documents only: a judge needs what was left alone too")
        self._calibration = fitted(np.array(cosines), np.array(right), np.array(weights))
        return self._calibration

    def _cosines(self, texts: Sequence[str], documents: Sequence[Content]) -> Floats:
        rows = np.stack([self._known[text] for text in texts])
        cosines: Floats = rows @ np.stack([self._known[document.text] for document in documents]).T
        return cosines


def fitted(x: Floats, right: Floats, weights: Floats) -> Calibration:
    """Return the logistic curve of x that fits best what is right (1) and wrong (0)."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scale, shift = parameters
        logits = scale * x + shift
        chance = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        losses = np.logaddexp(0.0, logits) - right * logits
        errors = weights * (chance - right)
        value = (weights * losses).sum() / weights.sum() + L2 * scale**2 / 2
        gradient = np.array([(errors * x).sum(), errors.sum()]) / weights.sum() + [L2 * scale, 0.0]
        return float(value), gradient

    found = minimize(
        loss, np.array([5.0, -2.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)]
    )
    return Calibration(scale=float(found.x[0]), shift=float(found.x[1]))
