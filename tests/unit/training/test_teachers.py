from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.datasets.jobs import read_jobs
from training.teachers import Teachers, bags


@pytest.fixture(scope="module")
def teachers(mini_data: Path) -> Teachers:
    return Teachers(read_jobs(mini_data / "jobs"))


def test_the_teachers_know_their_titles_and_new_ones_of_the_same_words(teachers: Teachers) -> None:
    found = teachers.label(["Lead Carpenters", "Lead Bakers", "Carpenters Lead"])
    assert [labels.titles[0] for labels in found] == ["Carpenters", "Bakers", "Carpenters"]


def test_labels_come_best_first_with_probabilities(teachers: Teachers) -> None:
    [labels] = teachers.label(["Night Bakers"])
    assert list(labels.probabilities) == sorted(labels.probabilities, reverse=True)
    assert 0 < labels.probabilities[-1] < labels.probabilities[0] <= 1
    assert sum(labels.probabilities) <= 1 + 1e-6
    assert len(set(labels.titles)) == len(labels.titles) == len(labels.probabilities)


def test_a_title_of_the_web_is_known_by_its_meaning(teachers: Teachers) -> None:
    """No n-gram is shared: only the sentence embedding can say it."""
    [labels] = teachers.label(["pastry cook"])
    assert labels.titles[0] == "Bakers"


def test_training_the_teachers_is_repeatable_and_leaves_the_global_state_alone(
    teachers: Teachers, mini_data: Path
) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    again = Teachers(read_jobs(mini_data / "jobs"))
    assert torch.equal(torch.rand(3), expected)
    assert again.label(["Night nurse"]) == teachers.label(["Night nurse"])


def test_features_ignore_case_and_are_never_empty() -> None:
    assert bags(["Registered Nurse"]) == bags(["registered NURSE"])
    assert bags(["!!"]) == [[0]]
