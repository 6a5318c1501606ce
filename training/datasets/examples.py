"""One supervised example, and the protocol of a source that draws them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from app.contracts.prompt import NO_CONTEXT, Context


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its context, and the rewrite a good rewriter would give (equal to the query: leave it)."""

    query: str
    target: str
    context: Context = NO_CONTEXT


class Source(Protocol):
    """A task's training side: an endless supply of examples, a pure function of the generator's state."""

    def draw(self, rng: Random) -> Example:
        """Draw one example."""


class DataError(ValueError):
    """A data file is missing or malformed; the message names file and line."""


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file; raises DataError naming the line that is not one."""
    for number, line in _numbered_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: expected an object")
        yield record


def read_tsv(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a tab-separated file with a header; raises DataError naming a ragged row."""
    lines = _numbered_lines(path)
    _, first = next(lines, (0, ""))
    if not first:
        raise DataError(f"{path}: no header")
    header = first.split("\t")
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise DataError(f"{path}:{number}: {len(fields)} fields where the header has {len(header)}")
        yield dict(zip(header, fields, strict=True))


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, line.rstrip("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; name a folder that has it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from error
