from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from training import baselines
from training.baselines import NearestTitle, canonical_titles, read_occupation_titles
from training.datasets.examples import DataError
from training.retrieval import Floats

VECTORS = {"Ward Nurse": [1, 0], "Head Cook": [0, 1], "ward nurse?": [0.9, 0.1], "kitchen": [0.1, 0.9]}


@pytest.fixture
def folder(tmp_path: Path, write_jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    write_jsonl(
        "occupations.jsonl",
        [
            {"code": "29", "title": "Registered Nurses"},
            {"code": "35", "title": "Cooks"},
            {"code": "36", "title": "Chefs"},
        ],
    )
    rows = ["title\tonet_code\tsource", "Head Cook\t36\tx", "Ward Nurse\t29\tx", "Head Cook\t35\tx"]
    (tmp_path / "synonyms_train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def embed(texts: Sequence[str], *_: object) -> Floats:
        return np.array([VECTORS[text] for text in texts], np.float32)

    monkeypatch.setattr(baselines, "embed", embed)
    monkeypatch.setattr(baselines, "cached_embeddings", embed)
    return tmp_path


def test_a_query_becomes_the_canonical_title_of_the_nearest_one_and_the_lowest_code_wins(
    folder: Path,
) -> None:
    assert NearestTitle(folder).rewrite(["kitchen", "ward nurse?"]) == ["Cooks", "Registered Nurses"]


def test_a_title_of_an_unknown_occupation_is_refused_with_its_line(folder: Path) -> None:
    path = folder / "synonyms_train.tsv"
    path.write_text(path.read_text("utf-8") + "Pilot\t53\tx\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"synonyms_train\.tsv:5: .*'53'"):
        NearestTitle(folder)


def test_canonical_titles_of_unseen_occupations_come_from_the_canonical_queries(
    folder: Path, write_jsonl: Callable[..., Path]
) -> None:
    write_jsonl(
        "queries.jsonl",
        [
            {"_id": "1", "text": "Pilots", "source": "canonical", "onet_code": "53"},
            {"_id": "2", "text": "flyer", "source": "alternate", "onet_code": "54"},
        ],
    )
    titles = canonical_titles(folder)
    assert titles["53"] == "Pilots"
    assert titles["29"] == "Registered Nurses"
    assert "54" not in titles


def test_data_without_occupations_has_no_titles(tmp_path: Path) -> None:
    assert canonical_titles(tmp_path) == {}


def test_an_occupation_without_a_title_is_refused(write_jsonl: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="'title'"):
        read_occupation_titles(write_jsonl("occupations.jsonl", [{"code": "1"}]))
