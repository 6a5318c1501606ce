"""Concepts that bear an occupation's names: how many it takes, whose they are, how often that is right."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from training.datasets.beir import Document, read_corpus
from training.datasets.examples import read_tsv
from training.datasets.jobs import read_jobs
from training.namesakes import name_key, namesakes


def document(doc_id: str, text: str, concept: str, kind: str = "occupation") -> Document:
    return Document(doc_id, "", text, {"concept_id": concept, "kind": kind})


CORPUS = (
    document("1", "hospital nurse", "nurse"),
    document("2", "Staff Nurse", "nurse"),
    document("3", "ward sister", "nurse"),
    document("4", "welder", "welder"),
    document("5", "hospital nurses", "group", "isco_group"),
)


@pytest.mark.parametrize(
    ("one", "other"), [("Hospital  Nurses", "hospital nurse"), ("Co-ordinator", "co ordinator")]
)
def test_spellings_of_a_name_are_one(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)
    assert name_key("Boss") != name_key("Bos")
    assert name_key("Gas") == "gas"


def test_two_names_in_common_make_a_namesake_of_the_whole_concept() -> None:
    titles = [("staff nurse", ["rn"]), ("Hospital Nurse", ["rn"]), ("welder", ["weld"])]
    assert namesakes(titles, {}, CORPUS) == {"rn": frozenset({"1", "2", "3"})}
    assert namesakes(titles, {"weld": "Welders"}, CORPUS)["weld"] == {"4"}  # its own title counts for two


def test_a_concept_belongs_to_whom_most_of_its_names_do() -> None:
    titles = [("staff nurse", ["rn"]), ("hospital nurse", ["rn", "aide"]), ("ward sister", ["rn", "aide"])]
    assert namesakes(titles, {}, CORPUS) == {"rn": frozenset({"1", "2", "3"})}


def test_no_name_in_common_is_no_namesake() -> None:
    assert namesakes([("baker", ["b"])], {"b": "Bakers"}, CORPUS) == {}


def test_labels_say_that_it_is_right_more_often_than_not(shared_data: Path) -> None:
    """On the occupations that have labels, which no namesake reads."""
    folder = shared_data / "jobs"
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for row in read_tsv(folder / "labels_train.tsv"):
        labels[row["onet_code"]].add(row["corpus-id"])
    jobs = read_jobs(folder)
    found = namesakes(jobs.train, jobs.canonical, read_corpus(folder / "corpus.jsonl"))
    shares = [len(found[code] & labels[code]) / len(found[code]) for code in labels.keys() & found.keys()]
    assert len(shares) > 80
    assert sum(shares) / len(shares) > 0.5
