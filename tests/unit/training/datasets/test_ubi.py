from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contracts.prompt import NO_CONTEXT, Context, Item
from app.relevance.base import Content
from training.datasets.examples import DataError
from training.datasets.instances import Instance, Search
from training.datasets.ubi import Counts, Options, read_instances
from training.datasets.ubi_log import KEPT_BYTES, MAX_LINE_BYTES
from training.datasets.ubi_rates import STRICT_DWELL_S

START = datetime(2025, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
CATALOGUE = {name: Content(name) for name in "abcdef"}
CLICKS, CONVERSIONS, SEARCHES = ("click", "item_click"), ("add_to_cart", "purchase"), ("search", "on_search")
SHOWING = ("impression", *CLICKS, *CONVERSIONS)

Document = dict[str, Any]
Rates = dict[str, float]


def event(
    action: str, name: str = "a", after_s: float = 0, place: object = None, **fields: object
) -> Document:
    return {
        "action_name": action,
        "query_id": "q1",
        "user_query": "shoes",
        "timestamp": START_MS + round(after_s * 1000),
        "event_attributes": {"object": {"object_id": name}, "position": {"ordinal": place}},
        **fields,
    }


def query(text: object, query_id: str = "q1", **fields: object) -> Document:
    return {"query_id": query_id, "user_query": text, "timestamp": START_MS, **fields}


def as_lines(documents: Iterable[Document]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def read_bytes(folder: Path, log: bytes, **options: Any) -> tuple[list[Instance], Counts]:
    path = folder / "log.ndjson"
    path.write_bytes(log)
    found = read_instances([path], CATALOGUE, options=Options(**options))
    return list(found), found.counts


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[Instance], Counts]]:
    """Instances and counts of a log of these documents; keyword arguments are options."""
    return lambda *documents, **options: read_bytes(tmp_path, as_lines(documents), **options)


def lists(instances: Iterable[Instance]) -> dict[str, tuple[Rates, Rates]]:
    """Text, with the item viewed before it -> (clicked, skipped), each object -> rate."""
    return {
        after(one.query, one.context.last_item and one.context.last_item.title): (
            {seen.content.text: seen.rate for seen in one.clicked},
            {seen.content.text: seen.rate for seen in one.skipped},
        )
        for one in instances
    }


def after(text: str, title: str | None) -> str:
    return f"{text} after {title}" if title else text


def viewed(title: str, **fields: object) -> Document:
    """The attributes of a query typed after an item was looked at."""
    return {"context": {"last_item": {"title": title, **fields}}}


# Strict clicks


@pytest.mark.parametrize(
    ("back_after_s", "clicked"),
    [
        (STRICT_DWELL_S - 0.001, {"b": 1.0}),
        (STRICT_DWELL_S, {"a": 1.0, "b": 1.0}),
        (0, {"a": 1.0, "b": 1.0}),  # at the same instant neither follows the other
    ],
)
def test_a_click_is_strict_unless_another_object_is_clicked_too_soon(
    read: Any, back_after_s: float, clicked: Rates
) -> None:
    instances, _ = read(event("click", "a"), event("item_click", "b", back_after_s))
    assert lists(instances) == {"shoes": (clicked, {})}


@pytest.mark.parametrize(
    ("conversion", "clicked"),
    [
        (event("purchase", "a", 3600), {"a", "b"}),
        (event("add_to_cart", "a", 0), {"a", "b"}),
        (event("add_to_cart", "a", -0.001), {"b"}),
        (event("purchase", "b", 3600), {"b"}),
        (event("purchase", "a", 3600, query_id="q2"), {"b"}),
    ],
)
def test_a_conversion_after_it_makes_any_click_strict(
    read: Any, conversion: Document, clicked: set[str]
) -> None:
    instances, _ = read(event("click", "a"), event("click", "b", 5), conversion)
    assert set(lists(instances)["shoes"][0]) == clicked


def test_only_a_click_on_another_object_of_the_same_query_id_is_a_way_back(read: Any) -> None:
    twice = [event("click", "a"), event("click", "a", 20), event("click", "b", STRICT_DWELL_S)]
    elsewhere = event("click", "c", 5, query_id="q2")
    looked_at = event("impression", "d", 5)
    assert set(lists(read(*twice, elsewhere, looked_at)[0])["shoes"][0]) == {"a", "b", "c"}


def test_one_strict_click_is_enough(read: Any) -> None:
    bounced, later = [event("click", "a"), event("click", "b", 5)], event("click", "a", 100)
    assert set(lists(read(*bounced)[0])["shoes"][0]) == {"b"}
    assert set(lists(read(*bounced, later)[0])["shoes"][0]) == {"a", "b"}


@pytest.mark.parametrize("others", ["bd", "bb", "db", "dd"])
def test_a_way_back_to_the_same_object_does_not_hide_the_way_out(read: Any, others: str) -> None:
    log = [event("click", name, after_s) for after_s, name in enumerate(f"c{others[0]}c{others[1]}")]
    assert "c" not in lists(read(*log)[0])["shoes"][0]


def test_a_conversion_rescues_the_clicks_before_it_whatever_comes_after(read: Any) -> None:
    log = [event("click", "a"), event("purchase", "a", 2), event("click", "a", 4), event("click", "b", 6)]
    assert "a" in lists(read(*log)[0])["shoes"][0]


# Skips


def test_what_stands_at_or_above_a_click_was_examined_and_nothing_below(read: Any) -> None:
    shown = [
        event("impression", name, place=place) for name, place in zip("abcde", (0, 2, 2, 3, 9), strict=True)
    ]
    assert lists(read(*shown, event("click", "b", 9))[0]) == {"shoes": ({"b": 1.0}, {"a": 1.0, "c": 1.0})}
    assert lists(read(*shown, event("click", "d", 9))[0])["shoes"][1].keys() == {"a", "b", "c"}


def test_the_click_must_be_in_the_same_query_id_and_a_conversion_is_none(read: Any) -> None:
    shown = event("impression", "a", place=1, query_id="q2")
    assert not lists(read(shown, event("click", "b", place=5))[0])["shoes"][1]
    sold = event("purchase", "b", place=5, query_id="q2")
    assert not lists(read(shown, event("click", "b", place=5), sold)[0])["shoes"][1]


@pytest.mark.parametrize("place", [None, -1, "first", True, 1.5, 1 << 60, [1]])
def test_without_a_position_an_impression_counts_as_examined(read: Any, place: object) -> None:
    shown = [event("impression", "a", place=place, query_id="q2"), event("click", "b", place=0)]
    assert lists(read(*shown)[0])["shoes"][1] == {"a": 1.0}


@pytest.mark.parametrize("attributes", [None, {}, {"position": 3}, {"position": None}])
def test_positions_may_be_absent_altogether(read: Any, attributes: Any) -> None:
    shown = event("impression", event_attributes={"object": {"object_id": "a"}, **(attributes or {})})
    assert lists(read(shown, event("click", "b", place=0))[0])["shoes"][1] == {"a": 1.0}


def test_an_object_stands_at_the_smallest_of_its_positions(read: Any) -> None:
    shown = [event("impression", "a", place=8), event("impression", "a", 1, place=2.0)]
    clicked = [event("impression", "b", place=2), event("click", "b", 5, place=7)]
    assert lists(read(*shown, *clicked)[0])["shoes"][1] == {"a": 1.0}
    nowhere = event("impression", "a", 2, place=-1)
    assert not lists(read(shown[0], nowhere, *clicked)[0])["shoes"][1]


def test_a_click_whose_position_is_not_known_tells_nothing_of_the_others(read: Any) -> None:
    assert not lists(read(event("impression", "a", place=0), event("click", "b"))[0])["shoes"][1]


@pytest.mark.parametrize("action", [*CLICKS, *CONVERSIONS])
def test_an_object_with_any_action_is_not_skipped(read: Any, action: str) -> None:
    log = [event("impression", "a", place=0), event(action, "a", 1), event("click", "b", 2, place=3)]
    assert "a" not in lists(read(*log)[0])["shoes"][1]


# Rates


def test_rates_are_shares_of_the_query_ids_that_showed_the_object(read: Any) -> None:
    log = [
        *(
            event("impression", name, place=place, query_id=f"q{n}")
            for n in range(4)
            for place, name in enumerate("ab")
        ),
        *(event("impression", "b", 1, place=1, query_id=f"q{n}") for n in range(4)),  # shown again
        *(event("click", "b", 2, query_id=f"q{n}") for n in range(3)),
        event("click", "c", 3, query_id="q0"),  # b's click of q0 bounces; c is shown by being clicked
    ]
    assert lists(read(*log)[0]) == {"shoes": ({"b": 2 / 4, "c": 1.0}, {"a": 3 / 4})}


@pytest.mark.parametrize(("enough", "clicked"), [(2, {"a": 0.5, "b": 0.5}), (3, {})])
def test_objects_with_too_few_impressions_are_in_neither_list(read: Any, enough: int, clicked: Rates) -> None:
    log = [
        *(event("impression", name, query_id=q) for name in "ab" for q in ("q1", "q2")),
        event("click", "a"),
        event("click", "b", query_id="q2"),
        *(event("click", "f", query_id=q) for q in ("q3", "q4", "q5")),
    ]
    found = lists(read(*log, min_impressions=enough)[0])
    assert found == {"shoes": ({**clicked, "f": 1.0}, {})}


def test_a_text_without_a_clicked_object_is_no_instance(read: Any) -> None:
    instances, counts = read(event("impression", "a"), event("add_to_cart", "b"))
    assert instances == []
    assert (counts.texts, counts.instances) == (1, 0)


def test_texts_are_one_query_whatever_their_case_and_spaces_and_the_commonest_form_stands(read: Any) -> None:
    forms = ["Straße", " STRASSE\t", "Straße", "strasse", "new  york", "New York", "Zebra"]
    log = [event("click", "a", user_query=form, query_id=str(n)) for n, form in enumerate(forms)]
    instances, counts = read(*log)
    assert [one.query for one in instances] == ["New York", "Straße", "Zebra"]
    assert counts.texts == 3


# What was typed


@pytest.mark.parametrize("source", ["event", "query", "search"])
def test_a_text_comes_from_the_best_source_and_of_that_the_latest(read: Any, source: str) -> None:
    click = event("click")
    del click["user_query"]
    blank = event("on_search", message=" ", after_s=9) | {"user_query": None}
    log = [click, blank, event("search", message="searched", after_s=1) | {"user_query": None}]
    log += [event("on_search", message="search", after_s=2) | {"user_query": ""}]
    if source != "search":
        log += [
            query("que", timestamp=START_MS + 2000),
            query("query"),
            query(None),
            query("", timestamp=START_MS + 9),
        ]
    if source == "event":
        log += [
            event("impression", "b", after_s=1, user_query="event"),
            event("impression", "b", user_query="eve"),
        ]
    expected = {"event": "event", "query": "que", "search": "search"}[source]
    assert [one.query for one in read(*log)[0]] == [expected]


def test_of_texts_of_the_same_moment_the_same_is_taken_in_any_order(read: Any) -> None:
    log = [event("click", user_query=text) for text in ("shoes", "boots", "hats")]
    assert [one.query for one in read(*log)[0]] == [one.query for one in read(*log[::-1])[0]] == ["boots"]


def test_events_whose_text_nothing_tells_are_counted(read: Any) -> None:
    silent = [event("click", after_s=n, user_query=None, query_id="q2") for n in (0, 1, 1)]
    instances, counts = read(event("click"), *silent, query(7, "q2"))
    assert (len(instances), counts.without_text, counts.texts) == (1, 3, 1)


# The context


def test_the_same_words_in_another_context_are_another_query(read: Any) -> None:
    boot, shoe = viewed("Boot", text="Men, Boots"), viewed("Shoe")
    log = [event("click", user_query="in blue", query_id=f"q{n}") for n in range(5)]
    log += [event("click", "b", 60, query_id="q1", user_query="in blue")]
    log += [event("impression", "c", query_id="q2", user_query="in blue")]
    log += [query("In Blue", "q0", query_attributes=shoe), query("?", "q1", query_attributes=boot)]
    log += [query("?", "q2", query_attributes=boot), query("?", "q4", query_attributes={})]
    instances, counts = read(*log)
    assert [(one.query, one.context) for one in instances] == [
        ("in blue", NO_CONTEXT),
        ("in blue", Context(Item("Boot", "Men, Boots"))),
        ("in blue", Context(Item("Shoe"))),
    ]
    assert lists(instances) == {
        "in blue": ({"a": 1.0}, {}),
        "in blue after Boot": ({"a": 1.0, "b": 1.0}, {"c": 1.0}),
        "in blue after Shoe": ({"a": 1.0}, {}),
    }
    assert (counts.texts, counts.instances) == (3, 3)


def test_a_query_without_a_text_tells_its_context_and_an_event_tells_none(read: Any) -> None:
    asked = {"context": {"previous_queries": ["throat cancer", "is it treatable"]}}
    (one,), _ = read(event("click"), query(None, query_attributes=asked))
    assert one.context == Context(previous_queries=("throat cancer", "is it treatable"))
    (one,), counts = read(event("click", query_attributes=viewed("Shoe")))
    assert (one.context, counts.malformed) == (NO_CONTEXT, {})


def test_the_latest_context_that_is_named_holds(read: Any) -> None:
    log = [
        query("x", query_attributes=viewed(title), timestamp=START_MS + after_ms)
        for title, after_ms in (("Boot", 5), ("Shoe", 9), ("Hat", 1))
    ]
    (one,), _ = read(event("click"), *log, query("x", timestamp=START_MS + 20))
    assert one.context == Context(Item("Shoe"))


@pytest.mark.parametrize("nothing", [None, {}, {"last_item": None}, {"previous_queries": []}])
def test_contexts_that_say_the_same_are_one(read: Any, nothing: object) -> None:
    same = [
        {"last_item": {"title": "Shoe"}},
        {"previous_queries": [], "last_item": {"text": "", "id": "7", "title": "Shoe"}},
        {"last_item": {"id": None, "title": "Shoe"}},
        nothing,
    ]
    log = [query("x", f"q{n}", query_attributes={"context": context}) for n, context in enumerate(same)]
    instances, _ = read(*log, *(event("click", query_id=f"q{n}") for n in range(4)))
    assert [one.context for one in instances] == [NO_CONTEXT, Context(Item("Shoe"))]


def test_random_documents_depend_on_the_context_too_and_without_one_are_as_ever(read: Any) -> None:
    log = [event("click", query_id=f"q{n}") for n in range(3)]
    log += [query("x", f"q{n}", query_attributes=viewed(title)) for n, title in enumerate(("Boot", "Shoe"))]
    plain, *others = (one.random for one in read(*log, num_random=3)[0])
    assert plain == (Content("c"), Content("b"), Content("f"))
    assert len({plain, *others}) == 3


# The log


def test_duplicates_change_nothing(read: Any) -> None:
    log = [
        event("click", "a", 1),
        event("click", "b", 5),
        event("purchase", "a", 9),
        event("impression", "c"),
    ]
    instances, counts = read(*log)
    again, doubled = read(*log, *log, *log[:1])
    assert again == instances
    assert (counts.duplicates, doubled.duplicates) == (0, 5)
    assert read(event("click"), event("item_click"), event("click", "b"))[1].duplicates == 0


def test_actions_that_mean_nothing_are_ignored_however_odd(read: Any) -> None:
    _, counts = read(event("product_hover"), {"action_name": "404_redirect"}, event("search"))
    assert counts == Counts(lines=3, events=3, ignored=2)


def test_the_window_holds_its_start_and_not_its_end(read: Any) -> None:
    log = [
        event("click", name, after_s) for name, after_s in zip("abcd", (-0.001, 0, 99.999, 100), strict=True)
    ]
    window = {"since": START, "until": START + timedelta(seconds=100)}
    instances, counts = read(*log, **window)
    assert set(lists(instances)["shoes"][0]) == {"b", "c"}
    assert counts.outside_window == 2
    assert read(*log, since=START)[1].outside_window == 1
    assert read(*log, until=START)[1].outside_window == 3


def test_a_search_before_the_window_still_says_what_was_typed(read: Any) -> None:
    log = [
        event("search", message="boots", after_s=-1) | {"user_query": None},
        event("click", user_query=None),
    ]
    instances, counts = read(*log, since=START)
    assert [one.query for one in instances] == ["boots"]
    assert counts.outside_window == 1


@pytest.mark.parametrize(
    "timestamp",
    [
        "2025-01-01T00:00:00Z",
        "2025-01-01T00:00:00.000+0000",
        "2024-12-31T19:00:00-05:00",
        "2025-01-01T00:00:00.000000999",
        "2025-01-01",
        START_MS,
        float(START_MS),
        str(START_MS),
    ],
)
def test_timestamps_have_many_forms(read: Any, timestamp: object) -> None:
    window = {"since": START, "until": START + timedelta(milliseconds=1)}
    _, counts = read(event("click", timestamp=timestamp), **window)
    assert (counts.outside_window, counts.instances) == (0, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"action_name": "click", "query_', "not_json"),
        (b"nonsense", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"user_query": ' + b"9" * 5000 + b"}", "not_json"),
        (b'{"user_query": "caf\xe9", "query_id": "q"}', "not_utf8"),
        (as_lines([event("click", user_query="\ud83d")]), "not_utf8"),
        (as_lines([query("x", "\udc00")]), "not_utf8"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "unknown_document"),
        (b'{"action_name": null, "query_id": "q"}', "unknown_document"),
        (b'{"delete": {"_id": "7"}}', "unknown_document"),
        (b'{"index": "ubi_events"}', "unknown_document"),
        (as_lines([event("click", query_id=None)]), "no_query_id"),
        (as_lines([event("search", query_id=" ")]), "no_query_id"),
        (as_lines([query("x", query_id=True)]), "no_query_id"),
        (as_lines([event("impression", event_attributes=None)]), "no_object_id"),
        (as_lines([event("click", event_attributes={"object": {"object_id": ""}})]), "no_object_id"),
        *(
            (as_lines([document]), "unknown_timestamp")
            for value in (
                None,
                "",
                "yesterday",
                True,
                float("nan"),
                float("inf"),
                -1,
                10**20,
                10**400,
                "9" * 99,
                [1],
            )
            for document in (event("click", timestamp=value), query("x", timestamp=value))
        ),
        *(
            (as_lines([query("x", query_attributes={"context": context})]), "unusable_context")
            for context in (
                "blue",
                [],
                {"page": 3},
                {"last_item": "Shoe"},
                {"last_item": {"text": "Shoe"}},
                {"last_item": {"title": " "}},
                {"last_item": {"title": "\ud83d"}},
                {"previous_queries": "shoes"},
                {"previous_queries": [7]},
            )
        ),
        (b'{"user_query": "' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long"),
        (b"x" * (MAX_LINE_BYTES + 1), "line_too_long"),
        (b"x" * 3 * (MAX_LINE_BYTES + 1), "line_too_long"),
    ],
)
def test_a_malformed_line_is_set_aside_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    good, line = as_lines([event("click")]), line.rstrip(b"\n")
    aside = tmp_path / "aside.jsonl"
    expected = {
        "file": str(tmp_path / "log.ndjson"),
        "line": 2,
        "reason": reason,
        "raw": line[:KEPT_BYTES].decode(errors="backslashreplace"),
    }
    for log in (good + line + b"\n" + good, good + line):  # within, and as the last line, cut short
        instances, counts = read_bytes(tmp_path, log, set_aside=aside)
        assert len(instances) == 1
        assert counts.malformed == {reason: 1}
        assert counts.lines == 1 + counts.events
        assert counts.queries == 0
        assert [json.loads(row) for row in aside.read_text(encoding="utf-8").splitlines()] == [expected]


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    line = as_lines([event("click")]).rstrip()
    assert read_bytes(tmp_path, line.ljust(MAX_LINE_BYTES - 1) + b"\n")[1].instances == 1
    assert read_bytes(tmp_path, line.ljust(MAX_LINE_BYTES) + b"\n")[1].malformed == {"line_too_long": 1}


def test_bulk_plain_and_gzipped_logs_say_the_same(tmp_path: Path) -> None:
    documents = [query("shoes"), event("click", user_query=None), event("impression", "b")]
    actions = [{"index": {"_index": "ubi_queries"}}, {"create": {}}, {"index": {"_id": "1"}}]
    bulk = [document for pair in zip(actions, documents, strict=True) for document in pair]
    read = {}
    for (name, log), suffix in product((("plain", documents), ("bulk", bulk)), ("", ".gz")):
        path = tmp_path / f"{name}.ndjson{suffix}"
        path.write_bytes(gzip.compress(as_lines(log)) if suffix else as_lines(log))
        found = read_instances([path], CATALOGUE)
        read[path.name] = (list(found), found.counts)
    assert len({repr(instances) for instances, _ in read.values()}) == 1
    assert (
        read["plain.ndjson.gz"][1]
        == read["plain.ndjson"][1]
        == Counts(3, queries=1, events=2, texts=1, instances=1)
    )
    assert read["bulk.ndjson.gz"][1] == read["bulk.ndjson"][1]
    assert read["bulk.ndjson"][1] == Counts(6, bulk_actions=3, queries=1, events=2, texts=1, instances=1)


def test_an_action_line_without_its_document_is_malformed(tmp_path: Path) -> None:
    action, click = b'{"index": {}}\n', as_lines([event("click")])
    aside = tmp_path / "aside.jsonl"
    log = action + action + b"\r\n" + click + action + b"{broken\n" + b"  \n" + action + b"\n"
    _, counts = read_bytes(tmp_path, log, set_aside=aside)
    assert counts == Counts(
        lines=9,
        blank=3,
        bulk_actions=2,
        events=1,
        malformed={"action_without_document": 2, "not_json": 1},
        texts=1,
        instances=1,
    )
    rows = [json.loads(row) for row in aside.read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["reason"]) for row in rows] == [
        (1, "action_without_document"),
        (6, "not_json"),
        (8, "action_without_document"),
    ]


def test_a_query_id_may_be_spread_over_files(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "xy"]
    for path, document in zip(paths, (event("click", user_query=None), query("boots")), strict=True):
        path.write_bytes(as_lines([document]))
    assert [one.query for one in read_instances(paths, CATALOGUE)] == ["boots"]
    assert not list(read_instances([], CATALOGUE))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("missing.ndjson", None, "no such file"),
        ("missing.gz", None, "no such file"),
        ("cut.gz", gzip.compress(b"{}\n" * 999)[:-12], "cannot be read to its end"),
        ("broken.gz", gzip.compress(b"")[:10] + b"\xff" * 99, "cannot be read to its end"),
        ("plain.gz", b"{}\n", "cannot be read to its end"),
        (".", None, "cannot be read to its end"),
    ],
)
def test_a_log_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + complaint):
        list(read_instances([path], CATALOGUE))


def test_a_file_to_set_lines_aside_must_be_writable(read: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        read(event("click"), set_aside=tmp_path / "none" / "aside.jsonl")


# Documents


def test_objects_that_the_catalogue_lacks_are_left_out_and_counted(read: Any) -> None:
    log = [event("impression", "b", place=0), event("impression", "X", place=0), event("click", "a", place=1)]
    log += [event("click", "Y", 60, place=2), event("click", "Y", query_id="q2", user_query="boots")]
    instances, counts = read(*log)
    assert lists(instances) == {"shoes": ({"a": 1.0}, {"b": 1.0})}
    assert (counts.unknown_objects, counts.texts, counts.instances) == (2, 2, 1)


def test_object_ids_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(as_lines([event("click", event_attributes={"object": {"object_id": 12}}, query_id=7)]))
    assert [one.clicked[0].content for one in read_instances([path], {"12": Content("x")})] == [Content("x")]


def test_random_documents_are_others_and_depend_on_seed_and_query_alone(tmp_path: Path) -> None:
    log = [event("impression", "b", place=0), event("click", "a", place=1)]
    boots = event("click", "a", query_id="q2", user_query="boots")
    drawn: dict[tuple[int, bool], Any] = {}
    for seed, alone in product((0, 1), (True, False)):
        instances, _ = read_bytes(
            tmp_path, as_lines(log if alone else [boots, *log]), seed=seed, num_random=3
        )
        drawn[seed, alone] = instances[-1].random
        assert len(set(instances[-1].random)) == 3
        assert not {Content("a"), Content("b")} & set(instances[-1].random)
    assert drawn[0, True] == drawn[0, False] != drawn[1, True] == drawn[1, False]
    path = tmp_path / "log.ndjson"
    path.write_bytes(as_lines(log))
    backwards = dict(reversed(CATALOGUE.items()))
    (one,) = read_instances([path], backwards, options=Options(num_random=3))
    assert one.random == drawn[0, True]
    for count, expected in ((0, 0), (4, 4), (9, 4)):
        instances, _ = read_bytes(tmp_path, as_lines(log), num_random=count)
        assert len(instances[0].random) == expected


@pytest.mark.parametrize("options", [{"min_impressions": 0}, {"num_random": -1}])
def test_numbers_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Options(**options)


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_moment_without_a_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must have a time zone"):
        Options(**{name: START.replace(tzinfo=None)})


def test_the_database_goes_with_the_iterator(tmp_path: Path) -> None:
    path, scratch = tmp_path / "log", tmp_path / "scratch"
    path.write_bytes(as_lines([event("click"), event("click", user_query="boots", query_id="q2")]))
    scratch.mkdir()
    found = read_instances([path], CATALOGUE, options=Options(scratch=scratch))
    assert found.counts == Counts()
    next(found)
    assert list(scratch.iterdir())
    del found
    assert not list(scratch.iterdir())


# All of it, against a plain reading of the definitions

events = st.builds(
    event,
    st.sampled_from(["impression", *CLICKS, *CONVERSIONS, "search", "hover"]),
    st.sampled_from("abcX"),
    st.sampled_from([0, 1, 29, 30, 31, 60]),
    st.sampled_from([None, 0, 1, 2]),
    query_id=st.sampled_from(["q1", "q2"]),
    user_query=st.sampled_from(["shoes", "Shoes", "boots", "", None]),
    message=st.sampled_from(["hats", None]),
)
queries = st.builds(
    query,
    st.sampled_from(["boots", "hats", None]),
    st.sampled_from(["q1", "q2"]),
    timestamp=st.sampled_from([START_MS, START_MS + 1]),
    query_attributes=st.sampled_from([{}, viewed("Shoe"), viewed("Boot"), None]),
)
broken = st.sampled_from([b"{\n", b"\n", b"7\n", as_lines([event("click", timestamp="")])])


@settings(max_examples=200)
@given(data=st.data())
def test_any_order_of_lines_gives_what_the_definitions_say(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = data.draw(st.lists(events | queries, max_size=30))
    lines = [as_lines([document]) for document in documents] + data.draw(st.lists(broken, max_size=3))
    folder = tmp_path_factory.mktemp("ubi")
    instances, counts = read_bytes(folder, b"".join(lines))
    assert read_bytes(folder, b"".join(data.draw(st.permutations(lines)))) == (instances, counts)
    assert {name.casefold(): found for name, found in lists(instances).items()} == by_definition(
        documents, CATALOGUE
    )
    whole = counts.blank + counts.bulk_actions + counts.queries + counts.events
    assert counts.lines == len(lines) == whole + sum(counts.malformed.values())


def typed(documents: Iterable[Document]) -> dict[str, str]:
    """query_id -> its text, as texts are compared, and the item viewed before it."""
    texts: dict[str, list[tuple[int, float, str]]] = defaultdict(list)
    titles: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in documents:
        if one.get("query_attributes"):
            title = one["query_attributes"]["context"]["last_item"]["title"]
            titles[one["query_id"]].append((-milliseconds(one["timestamp"]), title))
        action, text = one.get("action_name"), one.get("user_query")
        if action in (*SHOWING, *SEARCHES, None):
            source = 0 if action else 1
            if action in SEARCHES and not text:
                source, text = 2, one.get("message")
            if text and text.strip():
                texts[one["query_id"]].append((source, -milliseconds(one["timestamp"]), text))
    return {
        query_id: after(
            " ".join(min(found)[2].split()), min(titles[query_id], default=(0, None))[1]
        ).casefold()
        for query_id, found in texts.items()
    }


def by_definition(
    documents: Sequence[Document], catalogue: Mapping[str, Content]
) -> dict[str, tuple[Rates, Rates]]:
    """What `lists` gives, by casefolded text: one query_id and object at a time, nothing clever."""
    done: dict[str, list[tuple[str, str, float, int | None]]] = defaultdict(list)
    for one in documents:
        if (action := one.get("action_name")) in SHOWING:
            about = one["event_attributes"]
            name, place = about["object"]["object_id"], about["position"]["ordinal"]
            done[one["query_id"]].append((action, name, milliseconds(one["timestamp"]), place))
    judged: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    for query_id, text in typed(documents).items():
        clicks = [(name, at) for action, name, at, _ in done[query_id] if action in CLICKS]
        places = {
            name: min(
                (place for _, of, _, place in done[query_id] if of == name and place is not None), default=-1
            )
            for _, name, _, _ in done[query_id]
        }
        deepest = max((places[name] for name, _ in clicks), default=-1)
        for name, place in places.items():
            sold = [at for action, of, at, _ in done[query_id] if action in CONVERSIONS and of == name]
            stayed = [
                any(later >= at for later in sold)
                or not any(of != name and 0 < later - at < STRICT_DWELL_S * 1000 for of, later in clicks)
                for clicked, at in clicks
                if clicked == name
            ]
            judged[text, name].append((any(stayed), place <= deepest and not sold and not stayed))
    found: dict[str, tuple[Rates, Rates]] = defaultdict(lambda: ({}, {}))
    for (text, name), verdicts in judged.items():
        strict, skipped = (sum(column) / len(verdicts) for column in zip(*verdicts, strict=True))
        if name in catalogue and (strict or skipped):
            found[text][0 if strict else 1][name] = strict or skipped
    return {text: both for text, both in found.items() if both[0]}


def milliseconds(timestamp: int | str) -> float:
    return timestamp if isinstance(timestamp, int) else datetime.fromisoformat(timestamp).timestamp() * 1000


def test_the_example_of_the_format_is_read_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    path, aside = shared_data / "ubi" / "ubi_queries_events.ndjson", tmp_path / "aside.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    homeless = [n for n, row in enumerate(rows, start=1) if "index" not in row and not row["query_id"]]
    documents = [row for row in rows if "index" not in row and row["query_id"]]
    actions = Counter(one.get("action_name") for one in documents)
    showing = [one for one in documents if one.get("action_name") in SHOWING]
    texts = typed(documents)
    catalogue = {(name := one["event_attributes"]["object"]["object_id"]): Content(name) for one in showing}
    found = read_instances([path], catalogue, options=Options(set_aside=aside))
    instances = list(found)
    assert found.counts == Counts(
        lines=7842,
        bulk_actions=3921,
        queries=473,
        events=3446,
        ignored=319,
        malformed={"no_query_id": 2},
        without_text=60,
        texts=155,
        instances=70,
    )
    assert len(rows) == 7842 == 2 * 3921
    assert (actions.total(), actions[None], len(homeless)) == (473 + 3446, 473, 2)
    assert actions.total() - sum(actions[action] for action in (*SHOWING, *SEARCHES, None)) == 319
    assert sum(one["query_id"] not in texts for one in showing) == 60
    assert len({texts[one["query_id"]] for one in showing if one["query_id"] in texts}) == 155
    assert [json.loads(row)["line"] for row in aside.read_text(encoding="utf-8").splitlines()] == homeless
    by_text = {text.casefold(): both for text, both in lists(instances).items()}
    assert by_text == by_definition(documents, catalogue)
    assert [sum(len(both[side]) for both in by_text.values()) for side in (0, 1)] == [147, 225]


A_MILLION = """
import resource, sys
from pathlib import Path
from app.relevance.base import Content
from training.datasets.ubi import read_instances

LINE = (
    '{"action_name": "%s", "query_id": "%032x", "user_query": "query %d", "timestamp": %d,'
    ' "event_attributes": {"object": {"object_id": "object %d"}, "position": {"ordinal": %d}}}\\n'
)
path = Path(sys.argv[1])
with path.open("w") as log:
    for number in range(1_000_000):
        search, place = divmod(number, 20)
        action = "click" if place == 7 else "impression"
        # Multiplied by an odd number the ids come in no order, and none comes twice.
        query_id = search * 0x9E3779B97F4A7C15 % (1 << 64)
        row = action, query_id, search % 5000, 1735689600000 + number, (search * 7 + place) % 3000, place
        log.write(LINE % row)
catalogue = {f"object {number}": Content("") for number in range(3000)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_instances([path], catalogue)
instances = sum(1 for _ in found)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kib = 1 if sys.platform == "linux" else 1 / 1024
print(found.counts.events, instances, (peak - before) * kib / 1024, before * kib / 1024)
"""
# A process's peak starts from that of the one that started it, which here may be large: so a small one does.
SMALL = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"


def test_a_million_events_need_little_memory(tmp_path: Path) -> None:
    """Held in memory they would be some 500 MB."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL, "-c", A_MILLION, str(tmp_path / "log.ndjson")],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
    )
    events, instances, above_mb, before_mb = (float(word) for word in done.stdout.split())
    assert (events, instances) == (1_000_000, 5000)
    assert before_mb < 200
    assert above_mb < 100


def test_searches_without_any_click_are_kept_apart(tmp_path: Path) -> None:
    """In every context they have; one that somebody clicked for is no such search, whatever they clicked."""
    shoe = Context(last_item=Item("Shoe"))
    documents = [
        event("impression", "12", query_id="q1", user_query="in  Blue"),
        query("in blue", "q2", query_attributes={"context": {"last_item": {"title": "Shoe"}}}),
        event("impression", "12", query_id="q2", user_query="in blue"),
        event("click", "not in the catalogue", query_id="q3", user_query="boots"),
        query("nothing shown", "q4"),
    ]
    path = tmp_path / "log.ndjson"
    path.write_bytes(as_lines(documents))
    found = read_instances([path], CATALOGUE)
    assert not list(found)
    assert found.unclicked == [Search("in  Blue"), Search("in blue", shoe)]


def test_so_many_searches_without_a_click_are_kept_and_no_more(tmp_path: Path) -> None:
    """A sample that does not depend on the order of lines."""
    documents = [event("impression", "12", query_id=f"q{n}", user_query=f"text {n}") for n in range(50)]
    kept = []
    for order in (documents, documents[::-1]):
        path = tmp_path / "log.ndjson"
        path.write_bytes(as_lines(order))
        found = read_instances([path], CATALOGUE, options=Options(most_unclicked=7))
        assert not list(found)
        kept.append(found.unclicked)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 7
