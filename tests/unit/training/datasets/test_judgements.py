"""What the relevance model learns from, on the real data: nothing of it may come from a dev split."""

from __future__ import annotations

import builtins
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import pytest

from training.datasets import judgements
from training.datasets.beir import read_queries
from training.datasets.examples import read_tsv
from training.datasets.judgements import (
    NEGATIVES,
    NEIGHBOURS,
    Clicks,
    ClickSide,
    Concepts,
    Fashion,
    Products,
    read_fashion,
    without_colour,
)
from training.retrieval import Floats, tokens


def by_words(texts: Sequence[str]) -> Floats:
    """Vectors that share what the texts share: enough for neighbours, without an encoder."""
    rows = np.zeros((len(texts), 64), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in tokens(text):
            row[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
    found: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return found


@pytest.fixture(scope="module")
def opened() -> set[str]:
    return set()


@pytest.fixture(scope="module")
def concepts(shared_data: Path, opened: set[str]) -> Any:
    """The sources over jobs, and the name of every file that was opened for them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(judgements, "cached_embeddings", by_words)
    real = io.open

    def spy(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.add(str(file))
        return real(file, *args, **kwargs)

    patch.setattr(io, "open", spy)
    patch.setattr(builtins, "open", spy)
    found = Concepts(shared_data / "jobs")
    clicks = Clicks(shared_data / "jobs", found)
    patch.undo()
    return found, clicks


def test_two_forms_of_a_concept_and_others_that_are_none_of_it(concepts: Any) -> None:
    source, _ = concepts
    forms: dict[str, set[str]] = {}
    for document, concept in zip(source.documents, source.concept, strict=True):
        forms.setdefault(concept, set()).add(document.content.casefold())
    rng = Random(1)
    for _ in range(300):
        drawn = source.draw(rng)
        same = forms[drawn.answers]
        assert drawn.query.casefold() in same
        assert drawn.relevant.text.casefold() in same
        assert len(drawn.others) == NEGATIVES
        assert not same & {other.text.casefold() for other in drawn.others}


def test_occupations_whose_clicks_are_held_out_are_never_drawn_in_training(
    concepts: Any, shared_data: Path
) -> None:
    source, clicks = concepts
    patch = pytest.MonkeyPatch()
    patch.setattr(judgements, "cached_embeddings", by_words)
    others = [Clicks(shared_data / "jobs", source, side) for side in get_args(ClickSide)[1:]]
    patch.undo()
    rng = Random(2)
    trained, *held_out = ({one.draw(rng).answers for _ in range(1000)} for one in (clicks, *others))
    assert not trained & held_out[0]
    assert not trained & held_out[1]
    assert not held_out[0] & held_out[1]
    assert min(map(len, held_out)) >= 10


def test_a_listing_has_what_a_search_would_bring_and_says_what_was_clicked(concepts: Any) -> None:
    _, clicks = concepts
    rng = Random(4)
    listings = [clicks.listing(rng) for _ in range(50)]
    for listing in listings:
        assert len(listing.documents) == len(listing.relevant) > NEIGHBOURS // 2
        assert listing.query.casefold() not in {content.text.casefold() for content in listing.documents}
    assert any(any(listing.relevant) for listing in listings)
    assert not all(all(listing.relevant) for listing in listings)


def test_the_crowds_groups_are_those_of_its_concepts(concepts: Any) -> None:
    source, _ = concepts
    contents, groups = source.crowd(Random(5), 40)
    concept = dict(zip(source.group, source.concept, strict=True))
    forms = {(document.content, str(document.fields["concept_id"])) for document in source.documents}
    assert all(
        (content.text, concept[group]) in forms for content, group in zip(contents, groups, strict=True)
    )
    assert source.centroids.shape == (len(concept), source.embeddings.shape[1])


def test_clicks_know_no_title_and_no_occupation_of_a_dev_split(concepts: Any, shared_data: Path) -> None:
    _, clicks = concepts
    jobs = shared_data / "jobs"
    labelled = {row["onet_code"] for row in read_tsv(jobs / "labels_train.tsv")}
    queries = read_queries(jobs / "queries.jsonl")
    titles = {query.text.casefold() for query in queries}
    codes = {query.fields["onet_code"] for query in queries}
    rng = Random(3)
    for _ in range(500):
        drawn = clicks.draw(rng)
        assert drawn.answers in labelled
        assert drawn.answers not in codes
        assert drawn.query.casefold() not in titles


def test_no_qrel_and_no_query_of_a_dev_split_is_opened(concepts: Any, opened: set[str]) -> None:
    assert concepts
    assert any(name.endswith("labels_train.tsv") for name in opened)
    assert not [
        name for name in opened if "qrels" in name or name.endswith(("queries.jsonl", "ratings_dev.tsv"))
    ]


def test_a_product_is_asked_for_by_its_own_words_and_no_negative_has_them_all(shared_data: Path) -> None:
    source, rng = Products(shared_data / "products"), Random(4)
    for _ in range(100):
        drawn = source.draw(rng)
        wanted = set(tokens(drawn.query))
        for other in drawn.others:
            assert not wanted <= set(tokens(other.text))


def test_fashion_draws_training_items_with_images_and_other_colours(shared_data: Path) -> None:
    items = read_fashion(shared_data / "fashion")
    images = {item.item_id: (float(n), 1.0) for n, item in enumerate(items)}
    numbers = {float(n): item for n, item in enumerate(items)}
    source, rng = Fashion(items, images), Random(5)
    for _ in range(200):
        drawn = source.draw(rng)
        assert drawn.relevant.image is not None
        relevant = numbers[drawn.relevant.image[0]]
        assert relevant.side == "train"
        assert relevant.attributes.colour.casefold() in drawn.query
        for other in drawn.others:
            assert other.image is not None
            found = numbers[other.image[0]]
            assert found.side == "train"
            assert (found.attributes.colour, found.attributes.article) != (
                relevant.attributes.colour,
                relevant.attributes.article,
            )


def test_a_title_loses_the_words_of_its_colour_alone(shared_data: Path) -> None:
    items = [item for item in read_fashion(shared_data / "fashion") if item.attributes.colour == "Navy Blue"]
    for item in items[:200]:
        left = tokens(without_colour(item))
        assert not {"navy", "blue"} & set(left)
        assert [
            word for word in tokens(item.title) if word not in {"navy", "blue"}
        ] == left or "-" in item.title
