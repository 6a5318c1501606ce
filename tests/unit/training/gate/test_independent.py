"""The judge: calibrated on originals and clicks, then a scorer as any other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from app.relevance.base import Content, Floats
from training.datasets.examples import DataError
from training.datasets.instances import Instance, Seen
from training.gate.independent import CosineScorer, fitted

ASKED: list[list[str]] = []


def embed(texts: Sequence[str]) -> Floats:
    """Texts about nurses point one way, all others another; the number in a text turns it a little."""
    ASKED.append(list(texts))
    angles = [(0.0 if "nurse" in text else 1.4) + 0.02 * len(text) for text in texts]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def instance(query: str, clicked: str, skipped: str, rate: float = 1.0) -> Instance:
    return Instance(
        query, (Seen(Content(clicked), rate),), (Seen(Content(skipped), 0.5),), (Content("zebra"),)
    )


WINDOW = [instance(f"nurse {n}", f"ward nurse {n}", f"welder {n}") for n in range(20)]


def test_cosines_become_probabilities_of_clicks() -> None:
    judge = CosineScorer(embed)
    documents = [Content("staff nurse"), Content("welder")]
    before = asyncio.run(judge.scores(["nurse"], documents))[0]
    asyncio.run(judge.fit(WINDOW))
    right, wrong = asyncio.run(judge.scores(["nurse"], documents))[0]
    assert right > 0.9
    assert wrong < 0.1
    assert before[0] > before[1] > 0.1  # as it was, it said less


def test_each_text_is_embedded_once() -> None:
    ASKED.clear()
    judge = CosineScorer(embed)
    asyncio.run(judge.fit(WINDOW))
    asyncio.run(judge.scores(["nurse 1", "new"], [Content("zebra")]))
    texts = [text for batch in ASKED for text in batch]
    assert len(texts) == len(set(texts))
    assert ASKED[-1] == ["new"]


def test_without_anything_left_alone_there_is_nothing_to_tell_apart() -> None:
    only = [Instance("nurse", (Seen(Content("ward nurse"), 1.0),), (), ())]
    with pytest.raises(DataError, match="left alone"):
        asyncio.run(CosineScorer(embed).fit(only))


def test_the_fit_is_that_of_the_curve_that_made_the_clicks() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-0.2, 1.0, 20_000)
    right = (rng.random(20_000) < 1 / (1 + np.exp(-(8 * x - 4)))).astype(float)
    found = fitted(x, right, np.ones_like(x))
    assert (found.scale, found.shift) == pytest.approx((8, -4), rel=0.1)
    weights = np.where(right > 0, 1.0, 0.0)  # what counts for nothing is not seen
    assert fitted(x, right, weights).read(0.0) > 0.9
