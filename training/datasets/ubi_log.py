"""The lines of User Behavior Insights logs: `ubi_queries` and `ubi_events`, as OpenSearch defines them.

A file is in the bulk format (an action line `{"index": {…}}`, then the document) or plain, a document a line;
either may be gzipped (`.gz`). A document with an `action_name` is an event, one without it but with a
`user_query` is a query. Timestamps are ISO 8601, UTC where they name no zone, or milliseconds since 1970.
What was known when a query was typed stands in its `query_attributes`, see `training.datasets.ubi_context`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from training.datasets.examples import DataError
from training.datasets.ubi_context import ContextError, canonical

MAX_LINE_BYTES = 1 << 20
KEPT_BYTES = 500
"""So much of a malformed line is kept, to show what it was."""

Kind = Literal["impression", "click", "conversion"]
ACTIONS: Mapping[str, Kind] = {
    "impression": "impression",
    "click": "click",
    "item_click": "click",
    "add_to_cart": "conversion",
    "purchase": "conversion",
}
SEARCHES = frozenset({"search", "on_search"})
"""Events that say what was typed, and nothing about a document."""

FROM_EVENT, FROM_QUERY, FROM_SEARCH = range(3)
"""Where a text comes from: an event's `user_query`, a query document's, a search event's `message`.

The first that a query_id has is its text.
"""

Reason = Literal[
    "line_too_long",
    "not_utf8",
    "not_json",
    "not_an_object",
    "unknown_document",
    "action_without_document",
    "no_query_id",
    "no_object_id",
    "unknown_timestamp",
    "unusable_context",
]
Meaningless = Literal["blank", "bulk_actions", "ignored"]
"""What a line is that is sound but says nothing: the last is an event whose action means nothing here."""

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_YEAR_10000_MS = 253_402_300_800_000
_MAX_ORDINAL = 1 << 53


class Entry(NamedTuple):
    """What one document says about its query_id.

    Args:
        query_id: of the search.
        action, kind, object_id: what was done with which object; all None in a query and in a search event.
        at_us: when, in microseconds since 1970.
        position: of the object in the results; None where the document names none.
        text: what was typed; None where the document does not say.
        source: where the text comes from, FROM_EVENT, FROM_QUERY or FROM_SEARCH.
        context: what was known when it was typed, in canonical spelling; "" in all but queries that tell.
    """

    query_id: str
    action: str | None
    kind: Kind | None
    object_id: str | None
    at_us: int
    position: int | None
    text: str | None
    source: int
    context: str = ""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that says nothing because it is broken; `raw` is its start, at most KEPT_BYTES."""

    line: int
    reason: Reason
    raw: bytes


def read_log(path: Path) -> Iterator[Entry | Malformed | Meaningless]:
    """Yield one thing for each line of a log, whatever the line is.

    An action line is yielded after its document was looked for: it is malformed where the next line that is
    not blank is another action line, or there is none.

    Raises:
        DataError: the file is missing or cannot be read to its end (a gzip file that is cut short, say).
    """
    waiting: Malformed | None = None
    for number, line in _lines(path):
        item = _item(number, line)
        if waiting and item != "blank":
            yield waiting if item == "bulk_actions" else "bulk_actions"
            waiting = None
        if item == "bulk_actions":
            waiting = Malformed(number, "action_without_document", line[:KEPT_BYTES])
        else:
            yield item
    if waiting:
        yield waiting


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a moment with a time zone."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(at_us: int) -> datetime:
    """The moment that `microseconds` made a number of."""
    return _EPOCH + at_us * _MICROSECOND


class _MalformedError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number the lines; of a line above MAX_LINE_BYTES comes one byte more than that, its end or not."""
    try:
        with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield number, line
                while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; name the event logs there are") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read to its end: {error}; repair it or leave it out") from error


def _item(number: int, line: bytes) -> Entry | Malformed | Meaningless:
    if line.isspace():
        return "blank"
    try:
        document = _document(line)
        if "action_name" in document:
            return _event(document)
        if "user_query" in document:
            return _query(document)
        if len(document) == 1 and isinstance(document.get("index", document.get("create")), dict):
            return "bulk_actions"
    except _MalformedError as error:
        return Malformed(number, error.reason, line[:KEPT_BYTES])
    return Malformed(number, "unknown_document", line[:KEPT_BYTES])


def _document(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _MalformedError("line_too_long")
    try:
        document = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _MalformedError("not_utf8") from None
    except (ValueError, RecursionError):
        # Not JSONDecodeError alone: numbers of thousands of digits and brackets in thousands of brackets.
        raise _MalformedError("not_json") from None
    if not isinstance(document, dict):
        raise _MalformedError("not_an_object")
    return document


def _event(document: Mapping[str, Any]) -> Entry | Literal["ignored"]:
    action = document["action_name"]
    if not isinstance(action, str):
        raise _MalformedError("unknown_document")
    if action not in ACTIONS and action not in SEARCHES:
        return "ignored"
    query_id = _identifier(document.get("query_id"), "no_query_id")
    at_us = _timestamp_us(document.get("timestamp"))
    text = _text(document.get("user_query"))
    if action in SEARCHES:
        if text is not None:
            return Entry(query_id, None, None, None, at_us, None, text, FROM_EVENT)
        return Entry(query_id, None, None, None, at_us, None, _text(document.get("message")), FROM_SEARCH)
    attributes = document.get("event_attributes")
    object_id = _identifier(_inside(attributes, "object", "object_id"), "no_object_id")
    position = _position(_inside(attributes, "position", "ordinal"))
    return Entry(query_id, action, ACTIONS[action], object_id, at_us, position, text, FROM_EVENT)


def _query(document: Mapping[str, Any]) -> Entry:
    query_id = _identifier(document.get("query_id"), "no_query_id")
    at_us = _timestamp_us(document.get("timestamp"))
    text = _text(document["user_query"])
    try:
        context = canonical(_inside(document, "query_attributes", "context"))
    except ContextError:
        raise _MalformedError("unusable_context") from None
    return Entry(query_id, None, None, None, at_us, None, text, FROM_QUERY, context)


def _identifier(value: object, otherwise: Reason) -> str:
    """A string that is not blank, or an integer as a string."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if (text := _text(value)) is None:
        raise _MalformedError(otherwise)
    return text


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
            raise _MalformedError("not_utf8") from None
    return value


def _timestamp_us(value: object) -> int:
    try:
        if isinstance(value, str) and not value.isdecimal():
            moment = datetime.fromisoformat(value)
            return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            milliseconds = float(value)
            if 0 <= milliseconds < _YEAR_10000_MS:
                return int(milliseconds * 1000)
    except (ValueError, OverflowError):
        pass
    raise _MalformedError("unknown_timestamp")


def _position(value: object) -> int | None:
    """A whole number from 0; what else stands there is no position."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_ORDINAL:
        return value
    return None


def _inside(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
