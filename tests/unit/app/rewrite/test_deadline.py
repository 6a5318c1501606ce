# ruff: noqa: RUF001 -- other scripts are what is tested
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rewrite.deadline import Deadline, deadline_of, parse_timeout_header

MS = st.integers(min_value=1, max_value=10**10)


@given(arrived=st.floats(0, 1e9), body=st.none() | MS, header=st.none() | MS, default=MS)
def test_the_budget_is_the_smallest_wish(arrived: float, body: Any, header: str | None, default: Any) -> None:
    deadline = deadline_of(arrived, body_ms=body, header_ms=header, default_ms=default)
    smallest = min(ms for ms in (body, header, default) if ms is not None)
    assert deadline.at_s == pytest.approx(arrived + smallest / 1000)
    wishes = {"body": body, "header": header, "default": default}
    assert wishes[deadline.source] == smallest


@given(at=st.floats(-1e9, 1e9), now=st.floats(-1e9, 1e9), later=st.floats(0, 1e9))
def test_remaining_never_grows_and_is_never_negative(at: float, now: float, later: float) -> None:
    deadline = Deadline(at, "default")
    assert 0 <= deadline.remaining_s(now + later) <= deadline.remaining_s(now)


def test_ties_go_to_the_server() -> None:
    assert deadline_of(0, body_ms=5, header_ms=5, default_ms=5).source == "default"
    assert deadline_of(0, body_ms=5, header_ms=5, default_ms=6).source == "header"


@pytest.mark.parametrize(
    ("value", "expected"), [("1", 1), (" 250 ", 250), ("007", 7), ("9999999999", 9999999999)]
)
def test_header_values_that_count(value: str, expected: Any) -> None:
    assert parse_timeout_header(value) == expected


@pytest.mark.parametrize(
    "value", ["", " ", "0", "-1", "+5", "1.5", "1e3", "abc", "５", "²", "1_000", "1" * 11, "NaN"]
)
def test_header_values_that_are_ignored(value: str) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        parse_timeout_header(value)


@given(st.text())
def test_any_header_is_a_positive_number_or_a_value_error(value: str) -> None:
    try:
        assert parse_timeout_header(value) >= 1
    except ValueError:
        return
