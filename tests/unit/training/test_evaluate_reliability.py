"""Whether relevance means what it says: the distance is the right one, of the numbers that are served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from counting_model import counting_graph, write_model

from app.relevance.base import Content
from app.relevance.model import OnnxRelevance
from training.datasets.judgements import Listing
from training.evaluate_reliability import read
from training.reliability import reliability_of


def test_reliability_is_the_distance_of_what_is_said_and_what_is_true() -> None:
    said = np.repeat([0.05, 0.25, 0.95], 100)
    true = np.concatenate([np.arange(100) < 5, np.arange(100) < 45, np.arange(100) < 95]).astype(float)
    found = reliability_of(said, true)
    assert found["ece"] == pytest.approx(0.2 / 3, abs=1e-4)
    assert [bin_["count"] for bin_ in found["bins"]] == [100, 100, 100]
    assert found["auroc"] > 0.8


def test_both_heads_are_read_as_they_serve(tmp_path: Path) -> None:
    model = OnnxRelevance(write_model(tmp_path, counting_graph()))
    listings = [
        Listing("nurse", (Content("night nurse"), Content("welder")), (True, False)),
        Listing("shirt", (Content("shirt", (0.5, 0.5)),), (True,)),
    ]

    async def both() -> tuple[object, list[float], list[float]]:
        found = await read(model, listings)
        alone = [await model.score(one.query, one.documents) for one in listings]
        (query,) = await model.embed_queries(["nurse"])
        near = model.similarity(query, await model.embed_documents(listings[0].documents))
        await model.close()
        return found, [score for row in alone for score in row], near

    found, scores, near = asyncio.run(both())
    assert found["finerank"][0].tolist() == scores  # type: ignore[index]
    assert found["rawrank"][0].tolist()[:2] == near  # type: ignore[index]
    assert found["finerank"][1].tolist() == [1.0, 0.0, 1.0]  # type: ignore[index]
