from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.http.trace import continue_trace, new_trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{PARENT}-01", "01"),
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"00-{TRACE}-{PARENT}-ff", "01"),
        (f"01-{TRACE}-{PARENT}-01-what-comes-later", "01"),
    ],
)
def test_a_valid_trace_goes_on_with_a_span_of_our_own(header: str | None, flags: str) -> None:
    trace = continue_trace(header)
    assert (trace.trace_id, trace.flags) == (TRACE, flags)
    assert trace.span_id != PARENT
    assert trace.traceparent == f"00-{TRACE}-{trace.span_id}-{flags}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "junk",
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_malformed_headers_are_no_trace(header: str | None) -> None:
    assert continue_trace(header) is None


@given(st.text())
def test_any_text_is_a_trace_or_none(header: str | None) -> None:
    trace = continue_trace(header)
    assert trace is None or re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", trace.traceparent)


def test_new_traces_differ_and_are_readable_by_others() -> None:
    first, second = new_trace(), new_trace()
    assert first.trace_id != second.trace_id
    assert continue_trace(first.traceparent).trace_id == first.trace_id
