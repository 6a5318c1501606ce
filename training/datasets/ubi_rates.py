"""The database beneath `training.datasets.ubi`: entries of a log in, rates of queries and objects out.

What a rate is, is said there. SQLite keeps the log on disk, so that memory does not grow with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.datasets.ubi_log import Entry

STRICT_DWELL_S = 30


@dataclass(frozen=True, slots=True)
class Rate:
    """An object that a query text brought up in a context, over the query_ids of both.

    Args:
        query: the form of the text that most of these query_ids have.
        context: in canonical spelling; "" where nothing was known.
        name: of the object.
        impressions: query_ids in which it was shown.
        acted: how many of these had an action on it.
        strict: how many had a strict click on it.
        unacted: in how many of these it was examined and left alone.
    """

    query: str
    context: str
    name: str
    impressions: int
    acted: int
    strict: int
    unacted: int


class RateTable:
    """One log in a database file. Fill it once, then read."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file)
        self._database.create_function("normalised", 1, normalised, deterministic=True)
        for statement in _OPEN:
            self._database.execute(statement)

    def fill(self, entries: Iterable[Entry]) -> None:
        """Take in the whole log, in any order."""
        self._database.executemany(_INSERT, entries)
        for statement in _AGGREGATE:
            self._database.execute(statement, {"dwell_us": STRICT_DWELL_S * 1_000_000})

    def counts(self) -> dict[str, int]:
        """`duplicates` and `without_text`, as `training.datasets.ubi.Counts` has them."""
        return {name: self._database.execute(statement).fetchone()[0] for name, statement in _COUNT.items()}

    def objects(self) -> Iterator[str]:
        """The different objects that query texts brought up."""
        return (name for (name,) in self._database.execute(_OBJECTS))

    def rates(self) -> Iterator[Rate]:
        """In the order of normalised text, context and object."""
        return (Rate(*row) for row in self._database.execute(_RATES))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def normalised(text: str) -> str:
    """What two texts have in common that are one query: white space collapsed, casefolded."""
    return " ".join(text.split()).casefold()


_OPEN = (
    # Nothing needs to outlive a crash, and no more than 16 MiB may be in memory.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA temp_store = FILE",
    "PRAGMA cache_size = -16384",
    """CREATE TABLE log (query_id TEXT, action TEXT, kind TEXT, object TEXT, at_us INTEGER, position INTEGER,
        text TEXT, source INTEGER, context TEXT)""",
)

_INSERT = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

_AGGREGATE = (
    """CREATE INDEX log_by_object ON log (query_id, object, action, at_us, kind, position)
        WHERE action IS NOT NULL""",
    "CREATE TABLE contexts (query_id TEXT PRIMARY KEY, context TEXT) WITHOUT ROWID",
    """INSERT INTO contexts SELECT query_id, context FROM (
        SELECT query_id, context,
            row_number() OVER (PARTITION BY query_id ORDER BY at_us DESC, context) AS place
        FROM log WHERE context <> '') WHERE place = 1""",
    # The latest text of the best source: who types as they search has searched for the last of it.
    "CREATE TABLE queries (query_id TEXT PRIMARY KEY, typed TEXT, query TEXT, context TEXT) WITHOUT ROWID",
    """INSERT INTO queries SELECT query_id, text, normalised(text), coalesce(context, '') FROM (
        SELECT query_id, text,
            row_number() OVER (PARTITION BY query_id ORDER BY source, at_us DESC, text) AS place
        FROM log WHERE text IS NOT NULL) LEFT JOIN contexts USING (query_id) WHERE place = 1""",
    """CREATE TABLE spellings (query TEXT, context TEXT, typed TEXT, PRIMARY KEY (query, context))
        WITHOUT ROWID""",
    """INSERT INTO spellings SELECT query, context, typed FROM (
        SELECT query, context, typed,
            row_number() OVER (PARTITION BY query, context ORDER BY count(*) DESC, typed) AS place
        FROM queries GROUP BY query, context, typed) WHERE place = 1""",
    "CREATE TABLE dwelt (query_id TEXT, object TEXT, PRIMARY KEY (query_id, object)) WITHOUT ROWID",
    """INSERT OR IGNORE INTO dwelt SELECT query_id, object FROM (
        SELECT query_id, object,
            coalesce(min(object) OVER soon <> object OR max(object) OVER soon <> object, FALSE) AS bounced
        FROM log WHERE action IS NOT NULL AND kind = 'click'
        WINDOW soon AS (PARTITION BY query_id ORDER BY at_us
            RANGE BETWEEN 1 FOLLOWING AND :dwell_us - 1 FOLLOWING)) WHERE NOT bounced""",
    """CREATE TABLE shown AS SELECT query_id, object, min(position) AS position,
            max(kind <> 'impression') AS acted, max(kind = 'click') AS clicked,
            coalesce(min(at_us) FILTER (WHERE kind = 'click')
                <= max(at_us) FILTER (WHERE kind = 'conversion'), FALSE) AS converted
        FROM log WHERE action IS NOT NULL GROUP BY query_id, object""",
)

_COUNT = {
    "duplicates": """SELECT coalesce(sum(times - 1), 0) FROM (SELECT count(*) AS times FROM log
        WHERE action IS NOT NULL GROUP BY query_id, object, action, at_us)""",
    "without_text": """SELECT count(*) FROM log
        WHERE action IS NOT NULL AND query_id NOT IN (SELECT query_id FROM queries)""",
}

_OBJECTS = "SELECT object FROM shown JOIN queries USING (query_id) GROUP BY object"

# Rows of text, context, object, impressions, and how many of these had a strict click, and were examined
# without an action, in the order of text, context and object.
_RATES = """SELECT spellings.typed, context, object, count(*), sum(acted), sum(strict), sum(unacted) FROM (
        SELECT query_id, object, acted,
            converted OR EXISTS (SELECT 1 FROM dwelt
                WHERE dwelt.query_id = shown.query_id AND dwelt.object = shown.object) AS strict,
            NOT acted AND (position IS NULL OR position <= coalesce(
                max(position) FILTER (WHERE clicked) OVER (PARTITION BY query_id), -1)) AS unacted
        FROM shown) JOIN queries USING (query_id) JOIN spellings USING (query, context)
    GROUP BY query, context, object ORDER BY query, context, object"""
