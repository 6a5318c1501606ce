from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.contracts.prompt import Context, Item
from app.warm.queries import Head, read_head


def read(*lines: bytes) -> tuple[Head, list[tuple[int, str]]]:
    told: list[tuple[int, str]] = []
    head = read_head(lines, on_invalid=lambda number, problem: told.append((number, problem)))
    return head, told


def texts(head: Head) -> list[str]:
    return [request.query for request in head.requests]


def test_a_line_is_a_query_and_a_blank_one_is_none() -> None:
    head, told = read(b"\xef\xbb\xbfrn\r\n", b"\n", b" \t\r\n", "café manager\n".encode(), b"[a] list")
    assert texts(head) == ["rn", "café manager", "[a] list"]
    assert (head.lines, head.invalid, told) == (3, 0, [])


def test_a_line_may_be_what_the_route_takes() -> None:
    head, told = read(
        b'{"query": "in blue", "locale": "en-GB", "num_rewrites": 2, "context": '
        b'{"last_item": {"title": "shoe", "text": "red"}, "previous_queries": ["shoes"]}}'
    )
    assert told == []
    query = head.requests[0].to_query()
    assert (query.text, query.locale, query.num_rewrites) == ("in blue", "en-GB", 2)
    assert query.context == Context(Item("shoe", "red"), ("shoes",))


def test_a_bad_line_is_told_by_its_number_without_quoting_and_the_others_go_on() -> None:
    head, told = read(
        b"rn\n",
        b"secret\xff\n",
        b'{"query": "secret", "locale": "none of these"}\n',
        b'{"query": "secret"\n',
        b'{"question": "secret"}\n',
        b"\x00secret\n",
        b"x" * 513,
        b"nurse\n",
    )
    assert texts(head) == ["rn", "nurse"]
    assert (head.lines, head.invalid) == (8, 6)
    assert [number for number, _ in told] == [2, 3, 4, 5, 6, 7]
    assert "locale" in told[1][1]
    assert "secret" not in str(told)


def test_queries_that_share_an_entry_are_one() -> None:
    head, _ = read(
        b"rn icu",
        b"rn  icu",
        "\uff52\uff4e icu".encode(),
        b'{"query": "rn icu"}',
        b'{"query": "rn icu", "client_id": "c", "deadline_ms": 9, "mode": "auto"}',
        b"RN icu",
        b'{"query": "rn icu", "locale": "en-GB"}',
        b'{"query": "rn icu", "locale": "en-gb"}',
        b'{"query": "rn icu", "num_rewrites": 4}',
        b'{"query": "rn icu", "context": {"previous_queries": ["nurse"]}}',
    )
    assert (head.lines, len(head.requests)) == (10, 5)


@given(st.lists(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: b"{" + text.encode())))
def test_no_line_is_lost_and_none_breaks_it(lines: list[bytes]) -> None:
    head, told = read(*lines)
    assert head.invalid == len(told)
    assert head.lines <= len(lines)
    assert len(head.requests) <= head.lines - head.invalid
    assert all(0 < number <= len(lines) and problem for number, problem in told)
