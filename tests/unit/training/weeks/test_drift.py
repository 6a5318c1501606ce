"""What people search for from week to week."""

from __future__ import annotations

from collections import Counter

import pytest

from training.needs import Need
from training.weeks.drift import Life, lives, of_week

WANTED = [frozenset({f"d{number}"}) for number in range(60)]
NEEDS = [Need(f"title {place} of {min(one)}", one) for one in WANTED for place in range(1 + len(min(one)))]


def test_a_life_is_a_triangle() -> None:
    life = Life(3, 7)
    assert [life.popularity(week) for week in range(2, 8)] == [0, 0.5, 1, 1, 0.5, 0]
    assert [Life(0, 3).popularity(week) for week in range(4)] == [0.5, 1, 0.5, 0]


def test_every_week_some_come_up_and_others_fade() -> None:
    known = lives(WANTED, weeks=20, length=10, seed=1)
    assert set(known) == set(WANTED)
    assert known == lives(WANTED[::-1] + WANTED, weeks=20, length=10, seed=1)
    assert {one.end - one.first for one in known.values()} == {10}
    alive = [{one for one in WANTED if known[one].popularity(week)} for week in range(20)]
    assert all(alive)
    assert all(len(alive[week] - alive[week + 10]) == len(alive[week]) for week in range(10))
    assert len(set.union(*alive)) == 60
    for count, length in ((0, 10), (20, 0)):
        with pytest.raises(ValueError, match=">= 1"):
            lives(WANTED, weeks=count, length=length, seed=1)


def test_a_week_asks_for_what_is_alive_by_its_popularity() -> None:
    known = {one: Life(0, 9) if place % 2 else Life(-4, 5) for place, one in enumerate(WANTED)}
    drawn = Counter[frozenset[str]]()
    for seed in range(2000):
        found = of_week(NEEDS, known, week=0, count=10, seed=seed)
        assert len({need.query for need in found}) == 10
        drawn.update(need.relevant for need in found)
    young, old = (sum(drawn[one] for one in WANTED[side::2]) for side in (1, 0))
    assert old / young == pytest.approx(4.8, rel=0.1)  # 1 against 1/5; a little less: none is drawn twice
    # The titles of one share what is searched for it.
    rich, poor = (sum(drawn[one] for one in of) for of in (WANTED[10::2], WANTED[:10:2]))
    assert rich / poor == pytest.approx(5, rel=0.1)


def test_a_week_has_what_there_is() -> None:
    known = dict.fromkeys(WANTED, Life(0, 2)) | {WANTED[0]: Life(5, 7)}
    assert len(of_week(NEEDS, known, week=0, count=9999, seed=1)) == len(NEEDS) - 3
    assert [need.relevant for need in of_week(NEEDS, known, week=5, count=9999, seed=1)] == [WANTED[0]] * 3
    assert of_week(NEEDS, known, week=9, count=10, seed=1) == []
    assert of_week(NEEDS, known, week=0, count=10, seed=1) == of_week(NEEDS, known, week=0, count=10, seed=1)
    assert of_week(NEEDS, known, week=0, count=10, seed=1) != of_week(NEEDS, known, week=1, count=10, seed=1)
