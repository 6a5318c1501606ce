from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from training.datasets.jobs import read_jobs
from training.datasets.lexical import LexicalTeacher, RecombinedTitles, features


@pytest.fixture(scope="module")
def source(mini_data: Path) -> RecombinedTitles:
    return RecombinedTitles(read_jobs(mini_data / "jobs"))


def test_the_teacher_knows_its_titles_and_new_ones_of_the_same_words(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    teacher = LexicalTeacher(split)
    assert teacher.best(["Lead Carpenters", "Lead Bakers", "Carpenters Lead"]) == [
        "Carpenters",
        "Bakers",
        "Carpenters",
    ]


def test_training_the_teacher_leaves_the_global_state_alone(mini_data: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    LexicalTeacher(read_jobs(mini_data / "jobs"))
    assert torch.equal(torch.rand(3), expected)


def test_draws_are_a_function_of_the_generator(source: RecombinedTitles) -> None:
    assert [source.draw(Random(n)) for n in range(20)] == [source.draw(Random(n)) for n in range(20)]


def test_recombined_titles_are_new_and_made_of_known_words(source: RecombinedTitles, mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    known = {title for title, _ in split.train}
    words = {word for title in known for word in title.split()}
    made = [source._recombined(Random(n)) for n in range(300)]
    assert sum(title not in known for title in made) > 100
    assert all(title and set(title.split()) <= words for title in made)


def test_features_ignore_case_and_are_never_empty() -> None:
    assert features("Registered Nurse") == features("registered NURSE")
    assert features("!!") == [0]
