# ruff: noqa: RUF001 -- other scripts are what is tested
from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequestError
from app.http.body import parse_batch, parse_request, parse_rewrite
from app.http.schemas import RewriteRequest
from app.http.signal_schemas import SignalsRequest


def detail_of(body: Any) -> str:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadRequestError) as caught:
        parse_rewrite(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ({}, "query: Field required"),
        ({"query": ""}, "query: "),
        ({"query": " \t\r\n"}, "query: must have a visible character"),
        ({"query": "\u200b\u3000"}, "query: must have a visible character"),
        ({"query": "a\x00b"}, "query: must have a visible character and no control"),
        ({"query": "a\x1bb"}, "query: "),
        ({"query": "a\x9fb"}, "query: "),
        ({"query": "x" * 513}, "query: String should have at most 512 characters"),
        ({"query": "x" * 100_000}, "query: String should have at most 512 characters"),
        ({"query": 5}, "query: "),
        ({"query": None}, "query: "),
        ({"query": ["a"]}, "query: "),
        ({"query": "a", "query_id": 7}, "query_id: "),
        ({"query": "a", "client_id": "x" * 129}, "client_id: "),
        ({"query": "a", "deadline_ms": 0}, "deadline_ms: "),
        ({"query": "a", "deadline_ms": -1}, "deadline_ms: "),
        ({"query": "a", "deadline_ms": 60_001}, "deadline_ms: "),
        ({"query": "a", "deadline_ms": "5"}, "deadline_ms: "),
        ({"query": "a", "deadline_ms": True}, "deadline_ms: "),
        ({"query": "a", "deadline_ms": 1.5}, "deadline_ms: "),
        (b'{"query": "a", "deadline_ms": 1e999}', "deadline_ms: "),
        (b'{"query": "a", "deadline_ms": ' + b"9" * 5000 + b"}", "deadline_ms: "),
        ({"query": "a", "num_rewrites": 0}, "num_rewrites: "),
        ({"query": "a", "num_rewrites": 5}, "num_rewrites: "),
        ({"query": "a", "num_rewrites": None}, "num_rewrites: "),
        ({"query": "a", "locale": "english please"}, "locale: must be a language tag"),
        ({"query": "a", "stages": []}, "stages: "),
        ({"query": "a", "stages": ["recall", "recall"]}, "stages: "),
        ({"query": "a", "stages": ["precision"]}, "stages.0: "),
        ({"query": "a", "context": []}, "context: must be an object"),
        ({"query": "a", "context": {"last_item": {}}}, "context.last_item.title: Field required"),
        (
            {"query": "a", "context": {"last_item": {"title": "t", "text": "\x00"}}},
            "context.last_item.text: must have no control",
        ),
        ({"query": "a", "context": {"previous_queries": ["a"] * 11}}, "context.previous_queries: "),
        ({"query": "a", "context": {"previous_queries": ["a", ""]}}, "context.previous_queries.1: "),
        ({"query": "a", "extra": 1}, "extra: unknown field"),
        ({"query": "a", "\ud800": 1}, "body: must be valid Unicode"),
        ({"query": "a", "\u00e9\x00": 1}, "\\xe9?: unknown field"),
        (b'{"query": "\\ud800"}', "query: must be valid Unicode"),
        (
            b'{"query": "a", "context": {"previous_queries": ["\\udfff"]}}',
            "context.previous_queries.0: must be valid Unicode",
        ),
        (b"", "body: not JSON"),
        (b"{", "body: not JSON"),
        (b"[]", "body: must be an object"),
        (b'"query"', "body: must be an object"),
        (b'{"query": NaN}', "query: "),
        (b'{"query": "a", "deadline_ms": Infinity}', "deadline_ms: "),
        (b'{"query": "a"} trailing', "body: not JSON"),
        (b'{"query": "\xff"}', "body: not UTF-8"),
        (b'{"query": "a", "x": ' + b"[" * 100_000 + b"}", "body: nested too deeply"),
        (b'{"query": "a", "x": ' + b"[" * 300 + b"]" * 300 + b"}", "x: unknown field"),
    ],
)
def test_the_message_names_the_field(body: Any, start: str) -> None:
    detail = detail_of(body)
    assert detail.startswith(start)
    assert len(detail) < 1000


@pytest.mark.parametrize(
    "query",
    ["a", " a ", "a\tb\nc", "x" * 512, "日本語", "😀", "e\u0301", "می\u200cخواهم", "0", "\u202eabc", '"'],
)
def test_valid_queries_come_through_untouched(query: Any) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"query": query}, ensure_ascii=ascii_only).encode()
        assert parse_rewrite(body).to_query().text == query


def test_nothing_a_client_sent_is_quoted_but_field_names() -> None:
    assert "secret" not in detail_of(
        {"query": "secret" * 200, "deadline_ms": "secret", "locale": "secret secret"}
    )


def test_many_problems_are_told_in_few_words() -> None:
    detail = detail_of({"query": "a", **{f"field_{n}": 1 for n in range(1000)}})
    assert detail.endswith("and 995 more")


def test_of_very_many_problems_the_number_is_told() -> None:
    """Their list, which pydantic makes whole, would take seconds of everybody's time."""
    body = json.dumps({"query": "rn", **{f"k{n}": 0 for n in range(1001)}}).encode()
    with pytest.raises(BadRequestError, match=r"^body: 1001 fields are unknown or wrong$"):
        parse_rewrite(body)


def test_of_an_image_only_the_first_float_that_is_none_is_told() -> None:
    candidate = {"id": "a", "text": "nurse", "image": [0.5, *[""] * 500]}
    body = json.dumps({"query": "rn", "candidates": [candidate]}).encode()
    with pytest.raises(BadRequestError, match=r"^candidates\.0\.image\.1: Input should be a valid number$"):
        parse_request(body, SignalsRequest)


def test_whole_numbers_may_be_written_with_a_point() -> None:
    query = parse_rewrite(b'{"query": "a", "deadline_ms": 740.0, "num_rewrites": 2.0}').to_query()
    assert (query.deadline_ms, query.num_rewrites) == (740, 2)
    assert isinstance(query.deadline_ms, int)


def test_defaults() -> None:
    query = parse_rewrite(b'{"query": "a"}').to_query()
    assert (query.num_rewrites, query.stages, query.locale) == (1, ("recall", "rawrank", "finerank"), None)
    assert not query.context
    assert query.query_id != parse_rewrite(b'{"query": "a"}').to_query().query_id


@pytest.mark.parametrize(
    "bad",
    [b"5", b"null", b"{}", b'{"query": "\\ud800"}', b'{"query": "a", "x": ' + b"[" * 300 + b"]" * 300 + b"}"],
)
def test_an_invalid_item_loses_nobody_else(bad: Any) -> None:
    items = parse_batch(b'{"requests": [{"query": "a"}, ' + bad + b', {"query": "b"}]}')
    assert [type(item) for item in items] == [RewriteRequest, BadRequestError, RewriteRequest]


@pytest.mark.parametrize(
    ("body", "start"),
    [
        (b"[]", "body: must be an object"),
        (b"{}", "requests: must be a list"),
        (b'{"requests": {}}', "requests: must be a list"),
        (b'{"requests": []}', "requests: must have 1 to 256 items, not 0"),
        (
            json.dumps({"requests": [{"query": "a"}] * 257}).encode(),
            "requests: must have 1 to 256 items, not 257",
        ),
        (b'{"requests": [{"query": "a"}], "x": 1}', "x: unknown field"),
        (b'{"requests": [{"query": NaN}]}', "body: not JSON"),
        (b'{"requests": [', "body: not JSON"),
        (b"\xff", "body: not UTF-8"),
    ],
)
def test_a_malformed_envelope_is_refused_as_a_whole(body: Any, start: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_batch(body)
    assert str(caught.value).startswith(start)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(list(RewriteRequest.model_fields)), JSON) | JSON)
def test_any_json_is_valid_or_refused(value: str) -> None:
    body = json.dumps(value).encode("utf-8", "surrogatepass")
    for parse in (parse_rewrite, parse_batch):
        with contextlib.suppress(BadRequestError):
            parse(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_valid_or_refused(body: Any) -> None:
    for parse in (parse_rewrite, parse_batch):
        with pytest.raises(BadRequestError):
            parse(body)
