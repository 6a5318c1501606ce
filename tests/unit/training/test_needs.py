"""What simulated people look for: of the training sides alone, and no two the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from training.datasets.beir import read_corpus
from training.datasets.examples import DataError
from training.datasets.followups import read_items
from training.datasets.jobs import read_jobs
from training.datasets.judgements import click_side
from training.needs import (
    MOST_RELEVANT,
    NEEDS,
    fashion_needs,
    job_needs,
    product_needs,
    quiet_needs,
)
from training.retrieval import tokens


def test_jobs_are_titles_to_train_on_of_occupations_whose_clicks_are(shared_data: Path) -> None:
    needs = job_needs(shared_data / "jobs", 300, seed=1)
    split = read_jobs(shared_data / "jobs")
    held_out = {one.title for one in (*split.seen, *split.unseen)} | set(split.hidden.values())
    assert not held_out & {need.query for need in needs}
    codes = dict(split.train)
    assert {click_side(*codes[need.query]) for need in needs} == {"train"}
    assert len(needs) == 300
    assert all(need.relevant and not need.context for need in needs)


def test_products_are_asked_for_by_words_of_theirs_often_misspelt(shared_data: Path) -> None:
    needs = product_needs(shared_data / "products", 300, seed=1)
    words = {
        document.doc_id: set(tokens(document.content))
        for document in read_corpus(shared_data / "products" / "corpus.jsonl")
    }
    misspelt = 0
    for need in needs:
        assert 0 < len(need.relevant) <= MOST_RELEVANT
        right = [word for word in tokens(need.query) if all(word in words[name] for name in need.relevant)]
        having = {name for name, own in words.items() if own.issuperset(right)}
        assert having >= need.relevant
        if len(right) == len(tokens(need.query)):
            assert having == need.relevant
        else:
            misspelt += 1
    assert 0.5 < misspelt / 300 < 0.75


def test_follow_ups_start_from_training_items_and_want_what_they_ask_for(shared_data: Path) -> None:
    needs = fashion_needs(shared_data / "fashion", 300, seed=1)
    items = {item.item_id: item for item in read_items(shared_data / "fashion" / "items.jsonl")}
    training = {item.title for item in items.values() if item.side == "train"}
    in_colour = 0
    for need in needs:
        assert need.context.last_item is not None
        assert need.context.last_item.title in training
        assert need.relevant
        colour = need.query.removeprefix("same in ") if need.query.startswith("same in ") else None
        if colour:
            assert {items[name].attributes.colour.casefold() for name in need.relevant} == {colour}
            in_colour += 1
    assert in_colour


def test_quiet_searches_are_for_occupations_that_have_no_needs(shared_data: Path) -> None:
    folder = shared_data / "jobs"
    quiet = quiet_needs(folder, 100_000, seed=1)
    assert not any(need.relevant for need in quiet)
    assert not {need.query for need in quiet} & {need.query for need in job_needs(folder, 100_000, seed=1)}
    held_out = read_jobs(folder)
    assert not {need.query for need in quiet} & {one.title for one in (*held_out.seen, *held_out.unseen)}


@pytest.mark.parametrize("kind", NEEDS)
def test_needs_are_a_function_of_the_seed_and_differ(shared_data: Path, kind: str) -> None:
    name, make = NEEDS[kind]
    needs = make(shared_data / name, 200, 1)
    assert needs == make(shared_data / name, 200, 1) != make(shared_data / name, 200, 2)
    assert len({(need.query, need.context) for need in needs}) == 200


def test_where_there_are_not_so_many_there_are_fewer(
    write_jsonl: Callable[[str, Iterable[Mapping[str, Any]]], Path],
) -> None:
    rows = [
        {
            "id": str(n),
            "title": f"Nike Men Shirt {n}",
            "gender": "Men",
            "article_type": "Shirts",
            "base_colour": colour,
            "usage": "Sports",
        }
        for n, colour in enumerate(["Blue", "Red"] * 4)
    ]
    needs = fashion_needs(write_jsonl("items.jsonl", rows).parent, 1000, seed=1)
    assert 0 < len(needs) < 1000


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("jobs", "labels_train.tsv"), ("products", "corpus.jsonl"), ("fashion", "items.jsonl")],
)
def test_a_folder_without_its_data_is_refused(tmp_path: Path, kind: str, missing: str) -> None:
    with pytest.raises(DataError, match=f"{missing}: no such file"):
        NEEDS[kind][1](tmp_path, 3, 1)
