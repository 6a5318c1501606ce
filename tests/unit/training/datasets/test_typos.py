from __future__ import annotations

import re
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from training.datasets.beir import Query
from training.datasets.typos import NEIGHBOURS, one_typo, with_typos

seeds = st.integers(min_value=0, max_value=2**32)


def damerau_is_one(before: str, after: str) -> bool:
    """Whether one deletion, insertion, substitution or swap of neighbours leads from one to the other."""
    if len(before) == len(after):
        differing = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        swapped = (
            len(differing) == 2
            and differing[1] == differing[0] + 1
            and before[differing[0]] == after[differing[1]]
            and before[differing[1]] == after[differing[0]]
        )
        return len(differing) == 1 or swapped
    longer, shorter = sorted((before, after), key=len, reverse=True)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


@given(text=st.text(alphabet="abcdeZY 019-'é", max_size=30), seed=seeds)
def test_a_text_gets_exactly_one_typo_or_none_at_all(text: str, seed: int) -> None:
    changed = one_typo(text, Random(seed))
    if re.search("[A-Za-z]{2}", text):
        assert changed != text
        assert damerau_is_one(text, changed)
    else:
        assert changed == text


@given(seed=seeds)
def test_digits_and_short_words_stay_when_there_is_a_longer_word(seed: int) -> None:
    changed = one_typo("hp 940 ink cartridge 2x", Random(seed))
    assert changed.startswith("hp 940 ink c")
    assert changed.endswith(" 2x")


@given(seed=seeds)
def test_a_new_letter_is_a_neighbour_of_the_one_beside_it(seed: int) -> None:
    changed = one_typo("gggg", Random(seed))
    assert set(changed) <= {"g", *NEIGHBOURS["g"]}


def test_the_same_seed_gives_the_same_typo_and_all_four_kinds_occur() -> None:
    assert one_typo("registered nurse", Random(3)) == one_typo("registered nurse", Random(3))
    typos = {one_typo("nurse", Random(seed)) for seed in range(300)}
    assert {"nrse", "nruse", "nyrse", "nyurse"} <= typos


def test_upper_case_stays_upper_case() -> None:
    assert all(one_typo("NURSE", Random(seed)).isupper() for seed in range(50))


def test_neighbours_touch_each_other() -> None:
    assert NEIGHBOURS["g"] == "bfhtvy"
    assert NEIGHBOURS["q"] == "aw"
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)


def test_a_querys_typo_depends_on_seed_and_id_but_not_on_order() -> None:
    first, second = Query("a", "printer", {"split": "dev"}), Query("b", "monitor")
    forward, backward = with_typos((first, second), 7), with_typos((second, first), 7)
    assert forward == backward[::-1]
    assert [query.query_id for query in forward] == ["a", "b"]
    assert forward[0].fields == {"split": "dev"}
    assert len({with_typos((first,), seed)[0].text for seed in range(20)}) > 5
