"""Which queries to warm: a file of plain text or JSON Lines in, distinct valid requests out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.contracts import prompt
from app.errors import BadRequestError
from app.http.body import parse_rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.http.schemas import RewriteRequest


@dataclass(frozen=True, slots=True)
class Head:
    """What a file held: `lines` that were not blank, how many of them were `invalid`, and the rest once."""

    lines: int
    invalid: int
    requests: tuple[RewriteRequest, ...]


def read_head(lines: Iterable[bytes], *, on_invalid: Callable[[int, str], None]) -> Head:
    """Read one query per line: an object as POST /v1/rewrite takes it where it begins with "{", else text.

    Two requests are one where the cache would hold one entry for both. `on_invalid` is told the number of a
    line, from 1, and what is wrong with it, in words that do not quote it.
    """
    read = invalid = 0
    distinct: dict[tuple[str, str, int], RewriteRequest] = {}
    for number, line in enumerate(lines, start=1):
        stripped = line.removeprefix(b"\xef\xbb\xbf").strip()  # some editors begin a file with these three
        if not stripped:
            continue
        read += 1
        try:
            request = _request(stripped)
        except BadRequestError as error:
            invalid += 1
            on_invalid(number, str(error))
            continue
        distinct.setdefault(_entry_of(request), request)
    return Head(read, invalid, tuple(distinct.values()))


def _request(line: bytes) -> RewriteRequest:
    if line.startswith(b"{"):
        return parse_rewrite(line)
    try:
        return parse_rewrite(json.dumps({"query": line.decode()}).encode())
    except UnicodeDecodeError as error:
        raise BadRequestError(f"query: not UTF-8 (byte {error.start})") from None


def _entry_of(request: RewriteRequest) -> tuple[str, str, int]:
    """What tells the entries of one checkpoint apart; see `Generator.key`."""
    query = request.to_query()
    return prompt.render(query.text, query.context), (query.locale or "").lower(), query.num_rewrites
