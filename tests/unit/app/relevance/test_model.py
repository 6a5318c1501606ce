from __future__ import annotations

import asyncio
import json
import math
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_model import IMAGE_DIM, counting_graph, write_model

from app.errors import CheckpointError, RelevanceError
from app.relevance.base import Content
from app.relevance.manifest import SMALLEST, Calibration
from app.relevance.model import OnnxRelevance


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    return write_model(tmp_path / "counting", counting_graph())


def with_model(folder: Path, work: Callable[[OnnxRelevance], Awaitable[Any]], **how: Any) -> Any:
    async def scenario() -> Any:
        model = OnnxRelevance(folder, **how)
        try:
            return await work(model)
        finally:
            await model.close()

    return asyncio.run(scenario())


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_queries_documents_and_pairs_are_read_as_the_manifest_says(counting: Path) -> None:
    async def work(model: OnnxRelevance) -> None:
        queries = await model.embed_queries(["nurse", "night shift"])
        assert queries.tolist() == [[3, 9, 0, 0, 0], [4, 16, 0, 0, 0]]
        documents = await model.embed_documents([Content("nurse"), Content("shirt", (1.0, 0.5))])
        assert documents.tolist() == [[3, 9, 3, 0, 0], [3, 13, 3, 1, 0.5]]
        scores = await model.score("nurse", [Content("night"), Content("shirt", (1.0, 0.5))])
        assert scores == pytest.approx([sigmoid(1.7 - 1), sigmoid(2.0 + 1.5 - 1)])
        assert model.similarity(queries[0], documents) == pytest.approx(
            [sigmoid(0.01 * (9 + 81)), sigmoid(0.01 * (9 + 117))]
        )

    with_model(counting, work)


def test_a_text_is_cut_at_the_heads_limit_and_an_unknown_word_is_read(counting: Path) -> None:
    async def work(model: OnnxRelevance) -> None:
        long = Content("nurse nurse nurse nurse nurse nurse")
        found = await model.embed_documents([long, Content("astronaut"), Content("")])
        assert found[:, 0].tolist() == [5, 3, 2]

    with_model(counting, work)


def test_nothing_to_embed_or_score_is_no_error(counting: Path) -> None:
    async def work(model: OnnxRelevance) -> None:
        assert len(await model.embed_documents([])) == 0
        assert await model.score("nurse", []) == []

    with_model(counting, work)


def test_documents_are_embedded_once(counting: Path) -> None:
    async def work(model: OnnxRelevance) -> None:
        first = await model.embed_documents([Content("nurse"), Content("night"), Content("nurse")])
        model._heads.clear()  # whatever is computed from now on fails
        again = await model.embed_documents([Content("night"), Content("nurse")])
        assert again.tolist() == first[[1, 0]].tolist()
        with pytest.raises(KeyError):
            await model.embed_documents([Content("nurse", (1.0, 1.0))])

    with_model(counting, work)


def test_a_text_that_spells_anothers_image_is_another_document(counting: Path) -> None:
    async def work(model: OnnxRelevance) -> None:
        shown = await model.embed_documents([Content("nurse", (0.0, 0.0))])
        spelled = await model.embed_documents([Content("nurse\0" + "\0" * 8 * IMAGE_DIM)])
        assert spelled.tolist() != shown.tolist()

    with_model(counting, work)


def test_a_document_asked_for_again_and_again_keeps_only_its_own_embedding(counting: Path) -> None:
    """Its row is not a view of the batch that it came with: strangers go when they are forgotten."""
    popular, at_once, dim = 100, 50, 3 + IMAGE_DIM
    numpys = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)

    async def work(model: OnnxRelevance) -> int:
        favourites: list[Content] = []
        tracemalloc.start()
        try:
            for turn in range(popular):
                favourites.append(Content(f"favourite {turn}"))
                strangers = [Content(f"stranger {turn} {place}") for place in range(at_once - 1)]
                await model.embed_documents([*favourites, *strangers])
            held = tracemalloc.take_snapshot().filter_traces([numpys])
        finally:
            tracemalloc.stop()
        return sum(one.size for one in held.traces)

    known = 2 * popular
    held_bytes = with_model(counting, work, max_known=known)
    embedding_bytes = 4 * dim
    # Those that are known, and what the last answers are made of; with all their strangers it were 100 kB.
    assert known * embedding_bytes <= held_bytes < 3 * known * embedding_bytes


def test_a_model_may_have_one_head(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "pairs", counting_graph(), embedding=None)

    async def work(model: OnnxRelevance) -> None:
        assert len(await model.score("nurse", [Content("night")])) == 1
        with pytest.raises(RelevanceError, match="no head for embedding"):
            await model.embed_queries(["nurse"])

    with_model(folder, work)


@pytest.mark.parametrize("raw", [-1e9, -30.0, 0.0, 30.0, 1e9])
def test_a_relevance_is_above_0_and_at_most_1(raw: float) -> None:
    assert SMALLEST <= Calibration(scale=2.0, shift=0.5).read(raw) <= 1


def test_what_is_not_a_number_stays_none() -> None:
    assert math.isnan(Calibration(scale=2.0, shift=0.5).read(math.nan))


def head(**changes: Any) -> dict[str, Any]:
    inputs = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types", "image": "image"}
    calibration = {"scale": 1.0, "shift": 0.0}
    return {"file": "model.onnx", "output": "logit", "inputs": inputs, "calibration": calibration} | changes


def inputs_but(**changes: str | None) -> dict[str, str]:
    named = head()["inputs"] | changes
    return {role: name for role, name in named.items() if name is not None}


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (head(inputs=inputs_but(token_type_ids=None)), "does not say what the input 'types' is"),
        (head(inputs=inputs_but(token_type_ids="segments")), "what the input 'types' is"),  # noqa: S106
        (head(inputs=inputs_but(attention_mask=None)), "name the graph's input for attention_mask"),
        (head(inputs=inputs_but(input_ids="image", image="ids")), "is a tensor"),
        (head(inputs={**inputs_but(), "token_type_ids": "ids"}), "what the input 'types' is"),
        (head(output="score"), "no output 'score', it has embedding, logit"),
        (head(output="embedding", file="other.onnx"), "lists no other.onnx"),
        (head(calibration={"scale": 0.0, "shift": 0.0}), "scale"),
    ],
)  # fmt: skip
def test_a_wrong_graph_is_refused_with_what_is_missing(tmp_path: Path, score: Any, message: str) -> None:
    folder = write_model(tmp_path / "wrong", counting_graph(), score=score)
    with pytest.raises(CheckpointError, match=message):
        OnnxRelevance(folder)


def test_an_image_of_another_size_is_refused_at_load(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "wrong", counting_graph(), image_dim=IMAGE_DIM + 1)
    with pytest.raises(CheckpointError, match="takes 2 floats, image_dim says 3"):
        OnnxRelevance(folder)


def test_altered_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", counting_graph())
    graph = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(graph[:-1] + b"x")
    with pytest.raises(CheckpointError, match="SHA-256"):
        OnnxRelevance(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        OnnxRelevance(folder)
    (folder / "manifest.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(CheckpointError, match="version"):
        OnnxRelevance(folder)
    with pytest.raises(CheckpointError, match=r"is .* the folder of a relevance model"):
        OnnxRelevance(tmp_path)
    folder = write_model(tmp_path / "noise", b"this is no graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        OnnxRelevance(folder)


def test_a_provider_that_is_not_there_is_refused_with_those_that_are(counting: Path) -> None:
    with pytest.raises(CheckpointError, match=r"CPUExecutionProvider.*onnxruntime-gpu"):
        OnnxRelevance(counting, provider="NoSuchExecutionProvider")


def test_the_digest_changes_with_how_a_head_is_read(counting: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", counting_graph(), score=head(max_document_tokens=9))
    one, two = OnnxRelevance(counting), OnnxRelevance(other)
    assert one.digest != two.digest
    for model in (one, two):
        asyncio.run(model.close())
