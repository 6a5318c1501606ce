from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from app.engines.batch import RUN_COST_TOKENS, Entry, place, similar_lengths
from app.engines.decoding import Greedy

if TYPE_CHECKING:
    from collections.abc import Sequence


@given(st.lists(st.integers(0, 20), max_size=20))
def test_rows_are_placed_densely_and_copies_need_no_order(parents: Sequence[int]) -> None:
    slots = place(parents)
    assert sorted(slots) == list(range(len(parents)))
    targets = {slot for parent, slot in zip(parents, slots, strict=True) if parent != slot}
    assert not targets & set(parents)


def test_a_row_stays_where_it_is_when_it_can() -> None:
    assert place([2, 0, 1]) == [2, 0, 1]
    assert place([5, 0, 1]) == [2, 0, 1]
    assert place([0, 0, 1]) == [0, 2, 1]


@given(st.lists(st.integers(1, 100), max_size=30))
def test_prompts_share_a_run_only_where_padding_is_cheaper_than_a_run(lengths: list[int]) -> None:
    entries = [Entry(i, [1] * length, Greedy(end_id=0, max_tokens=1), 1) for i, length in enumerate(lengths)]
    groups = similar_lengths(entries)
    assert sorted(entry.tag for group in groups for entry in group) == list(range(len(lengths)))
    for group in groups:
        added = [
            i * (len(longer.prompt) - len(shorter.prompt))
            for i, (shorter, longer) in enumerate(pairwise(group), 1)
        ]
        assert all(padding <= RUN_COST_TOKENS for padding in added)
