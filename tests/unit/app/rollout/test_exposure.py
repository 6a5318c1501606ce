"""Tokens: what goes in comes out, for the same query_id and key alone."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rollout.assignment import BUCKETS
from app.rollout.evidence import Cell
from app.rollout.exposure import seal, unseal

KEY = b"k" * 32
CELLS = st.builds(
    Cell, st.integers(0, 2**32 - 1), st.integers(0, 255), st.booleans(), st.integers(0, BUCKETS - 1)
)


@given(CELLS, st.text())
def test_what_goes_in_comes_out(cell: Cell, query_id: str) -> None:
    token = seal(cell, query_id, KEY)
    assert unseal(token, query_id, KEY) == cell
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@given(CELLS, st.text(), st.text())
def test_it_is_of_one_search_and_one_deployment(cell: Cell, query_id: str, other: str) -> None:
    token = seal(cell, query_id, KEY)
    assert unseal(token, other, KEY) == (cell if other == query_id else None)
    assert unseal(token, query_id, b"x" * 32) is None


@given(st.data())
def test_a_token_that_was_changed_is_none(data: st.DataObject) -> None:
    token = seal(Cell(1, 2, impacted=True, bucket=3), "q", KEY)
    place = data.draw(st.integers(0, len(token) - 2))  # the last character has bits that mean nothing
    changed = data.draw(st.sampled_from(sorted(set(string.ascii_letters) - {token[place]})))
    assert unseal(token[:place] + changed + token[place + 1 :], "q", KEY) is None


@pytest.mark.parametrize("token", ["", "x", "====", "ünï", "A" * 26, "A" * 1000, "\x00"])
def test_nonsense_is_no_token(token: str) -> None:
    assert unseal(token, "q", KEY) is None


@given(st.text())
def test_nothing_makes_it_fail(token: str) -> None:
    assert unseal(token, "q", KEY) is None
