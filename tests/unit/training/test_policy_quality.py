"""First choices of a policy by human labels: on each side, with each retriever, in place of the query."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRelevance
from tiny_policy import write_policy

from training.anchors import first_choices
from training.config import SampleConfig
from training.datasets.beir import Document, Query, Task
from training.datasets.instances import Search
from training.datasets.judgements import click_side
from training.policy_quality import BiEncoder, PolicyJudge, policy_sides
from training.retrieval import Bm25Retriever

DOCUMENTS = (Document("d1", "", "registered nurse"), Document("d2", "", "welder"))
QUERIES = (Query("q1", "icu rn", {}), Query("q2", "welder", {}))
TASK = Task(DOCUMENTS, QUERIES, {"q1": {"d1": 1}, "q2": {"d2": 1}})


def test_what_is_written_is_searched_in_place_of_its_query() -> None:
    judge = PolicyJudge({"all": TASK}, {"words": Bm25Retriever(DOCUMENTS)})
    assert judge.of_rewrites({}) == {"all words": 0.5}
    assert judge.of_rewrites({"icu rn": "registered nurse"}) == {"all words": 1.0}
    assert judge.of_rewrites({"icu rn": "", "welder": "nurse"}) == {"all words": 0.0}


def test_each_side_is_measured_by_each_retriever() -> None:
    one = Task(DOCUMENTS, QUERIES[1:], TASK.qrels)
    retrievers = {"all": Bm25Retriever(DOCUMENTS), "welders": Bm25Retriever(DOCUMENTS[1:])}
    found = PolicyJudge({"both": TASK, "one": one}, retrievers).of_rewrites({"icu rn": "registered nurse"})
    assert found == {"both all": 1.0, "both welders": 0.5, "one all": 1.0, "one welders": 1.0}


def test_the_bi_encoder_ranks_by_its_vectors() -> None:
    class Axes(FakeRelevance):
        async def embed_queries(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return np.array([[1.0, 0.0] if "nurse" in text else [0.0, 1.0] for text in texts], np.float32)

    found = BiEncoder(DOCUMENTS, Axes(), np.eye(2, dtype=np.float32)).search(["a nurse", "a welder"], 1)
    assert found == [[("d1", 1.0)], [("d2", 1.0)]]


def test_first_choices_are_the_same_in_any_company(tmp_path: Path) -> None:
    policy, config = write_policy(tmp_path), SampleConfig(max_tokens=5)
    many = first_choices(policy, [Search(f"query {number}") for number in range(140)], config, threads=1)
    assert len(many) == 140
    assert first_choices(policy, [Search("query 139")], config, threads=1) == many[139:]


@pytest.fixture
def sides(shared_data: Path) -> dict[str, Task]:
    return policy_sides(shared_data / "jobs")


def test_sides_are_told_apart_by_clicks_and_by_what_sft_saw(
    sides: dict[str, Task], shared_data: Path
) -> None:
    codes = {side: {str(query.fields["onet_code"]) for query in task.queries} for side, task in sides.items()}
    assert {click_side(code) for code in codes["clicked"]} == {"train"}
    assert "train" not in {click_side(code) for code in codes["quiet"]}
    assert not codes["hidden"] & (codes["clicked"] | codes["quiet"])
    listed = (shared_data / "jobs" / "queries.jsonl").read_text().splitlines()
    dev = {record["onet_code"] for record in map(json.loads, listed)}
    assert not dev & set().union(*codes.values())
