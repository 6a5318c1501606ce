"""Simulated people: attention falls with the place, clicks depend on the document, satisfaction ends it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.users import User

SEARCHES = 4000


def shares(user: User, relevant: list[bool]) -> list[float]:
    """Of the searches, the share with a click at each place."""
    rng = Random(1)
    counts = [0] * len(relevant)
    for _ in range(SEARCHES):
        for click in user.clicks(relevant, rng):
            counts[click.place] += 1
    return [count / SEARCHES for count in counts]


def test_attention_falls_as_the_place_to_the_power_of_eta() -> None:
    user = User(eta=1.0, attraction=(1.0, 1.0), satisfaction=(0.0, 0.0))
    assert shares(user, [False] * 4) == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4], abs=0.03)


def test_clicks_depend_on_the_document() -> None:
    user = User(eta=0.0, attraction=(0.1, 0.7), satisfaction=(0.0, 0.0))
    assert shares(user, [True, False, True]) == pytest.approx([0.7, 0.1, 0.7], abs=0.03)


def test_who_is_satisfied_looks_no_further() -> None:
    user = User(eta=0.0, attraction=(1.0, 1.0), satisfaction=(0.0, 0.5))
    assert shares(user, [False, True, False]) == pytest.approx([1.0, 1.0, 0.5], abs=0.03)


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 99))
def test_clicks_come_from_the_top_once_each_and_end_with_satisfaction(
    relevant: list[bool], seed: int
) -> None:
    clicks = User().clicks(relevant, Random(seed))
    places = [click.place for click in clicks]
    assert places == sorted(set(places))
    assert all(0 <= place < len(relevant) for place in places)
    assert not any(click.satisfied for click in clicks[:-1])
    assert clicks == User().clicks(relevant, Random(seed))
