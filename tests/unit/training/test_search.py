from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from fakes import FakeRelevance
from hypothesis import given, settings
from hypothesis import strategies as st

from training.cli_search import side_by_side
from training.datasets.beir import Document, Query, Task
from training.evaluate import Rewrite
from training.evaluate_stages import ARMS, arm_values, of_judged, stage_rows
from training.search import FINE, Knobs, Plan, Stack

WORDS = ("night", "nurse", "shift", "welder", "icu", "rn", "registered", "care", "job", "lead")


def corpus(count: int) -> list[Document]:
    rng = Random(5)
    return [Document(f"d{n}", "", " ".join(rng.sample(WORDS, 3)) + f" {n}") for n in range(count)]


def stack(tmp_path: Path, relevance: FakeRelevance | None = None, count: int = 160) -> Stack:
    return asyncio.run(Stack.over(corpus(count), relevance or FakeRelevance(), tmp_path))


REWRITES = (Rewrite("registered nurse", 0.9), Rewrite("night care", 0.4))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return stack(tmp_path_factory.mktemp("stack"))


def search(one: Stack, *plans: Plan) -> list[list[str]]:
    return asyncio.run(one.search(plans))


@pytest.mark.parametrize(
    "neutral",
    [
        Plan("icu rn"),
        Plan("icu rn", REWRITES, frozenset()),
        Plan("icu rn", tuple(replace(one, confidence=0.0) for one in REWRITES)),
        Plan("icu rn", tuple(replace(one, confidence=math.nan) for one in REWRITES)),
        Plan("icu rn", REWRITES, frozenset({"rawrank", "finerank"}), knobs=Knobs(max_factor=1.0)),
        Plan("icu rn", REWRITES, frozenset({"rawrank", "finerank"}), knobs=Knobs(0.0, 0.0)),
    ],
)
def test_what_is_neutral_leaves_the_original_ranking_as_it_was(shared: Stack, neutral: Plan) -> None:
    original, found = search(shared, Plan("icu rn", stages=frozenset()), neutral)
    assert found == original


def test_finerank_alone_reorders_what_the_original_put_there_and_nothing_else(shared: Stack) -> None:
    original, found = search(shared, Plan("icu rn"), Plan("icu rn", REWRITES, frozenset({"finerank"})))
    assert found != original
    assert set(found[:FINE]) == set(original[:FINE])
    assert found[FINE:] == original[FINE:]


def test_finerank_starts_from_what_rawrank_made_of_a_document(shared: Stack) -> None:
    strong = Knobs(rawrank_weight=8.0, max_factor=50.0)
    original, found = search(shared, Plan("icu rn"), Plan("icu rn", REWRITES, frozenset({"rawrank"}), strong))
    kept = set(original[:FINE]) & set(found[:FINE])
    assert [doc_id for doc_id in found[:FINE] if doc_id in kept] != [
        doc_id for doc_id in original[:FINE] if doc_id in kept
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), st.floats(0, 1)), max_size=3
    ),
)
def test_no_document_that_the_original_finds_is_ever_dropped(
    shared: Stack, query: list[str], rewrites: list[tuple[list[str], float]]
) -> None:
    used = tuple(Rewrite(" ".join(words), confidence) for words, confidence in rewrites)
    original, found = search(shared, Plan(" ".join(query)), Plan(" ".join(query), used))
    assert set(original) <= set(found)
    assert len(set(found)) == len(found)


def test_a_pair_is_scored_once(tmp_path: Path) -> None:
    relevance = FakeRelevance()
    one = stack(tmp_path, relevance)
    search(one, Plan("icu rn", REWRITES))
    scored = sum(len(what) - 1 for head, what in relevance.asked if head == "score")
    assert scored == 3 * FINE
    search(one, Plan("icu rn", REWRITES), Plan("icu rn", REWRITES, knobs=Knobs(max_factor=2.0)))
    again = sum(len(what) - 1 for head, what in relevance.asked if head == "score")
    assert again - scored < FINE  # other candidates only


def test_the_corpus_is_embedded_once_for_a_model(tmp_path: Path) -> None:
    stack(tmp_path)
    second = FakeRelevance()
    stack(tmp_path, second)
    assert not [head for head, _ in second.asked if head == "embed_documents"]
    other = FakeRelevance(digest="0b" * 32)
    stack(tmp_path, other)
    assert [head for head, _ in other.asked if head == "embed_documents"]


def task() -> Task:
    queries = tuple(Query(f"q{n}", text) for n, text in enumerate(("icu rn", "lead welder", "shift job")))
    wanted = {"q0": ("registered", "nurse"), "q1": ("welder",), "q2": ("care",)}
    qrels = {
        query_id: {doc.doc_id: 1 for doc in corpus(160) if set(words) <= set(doc.text.split())}
        for query_id, words in wanted.items()
    }
    return Task(tuple(corpus(160)), queries, qrels)


def test_the_arms_are_what_they_say(shared: Stack) -> None:
    rewrites = {"q0": [Rewrite("registered nurse", 0.9)]}
    found = asyncio.run(arm_values(task(), shared, rewrites, knobs=Knobs(1.0, 4.0, 100.0)))
    rows = {row.rewrite: row for row in stage_rows(found)}
    assert tuple(rows) == ARMS
    assert rows["empty"].delta == 0
    assert rows["empty"].ndcg == rows["none"].ndcg
    assert rows["parallel"].delta > 0
    assert rows["finerank"].ndcg <= rows["parallel"].ndcg
    assert rows["alone"].delta > 0
    assert rows["random"].ndcg < rows["parallel"].ndcg
    tight = Knobs(max_factor=1.0)
    found = asyncio.run(arm_values(task(), shared, rewrites, knobs=tight, arms=("none", "finerank")))
    assert stage_rows(found)[1].delta == 0


def test_rankings_of_judged_documents_keep_their_order() -> None:
    assert of_judged({"q": {"a": 1, "c": 0}}, "q", ["x", "c", "y", "a"]) == ["c", "a"]


def test_both_rankings_are_shown_and_what_is_new_is_marked() -> None:
    text = side_by_side("icu rn", [Rewrite("nurse", 0.5)], ["one", "two"], ["two", "three" * 20], 40)
    lines = text.splitlines()
    assert lines[1] == "  nurse    confidence 0.50"
    assert lines[-2] == "  1  one               two"
    assert lines[-1].startswith("  2  two             + threethreethre")
    assert lines[-1].endswith("…")
    assert "no rewrite" in side_by_side("icu rn", [], ["one"], ["one"], 40)
