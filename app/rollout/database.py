"""The database of rollouts: SQLite in a file for one machine, PostgreSQL for many replicas. It blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Engine, Table, create_engine, event, func, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.errors import RolloutError, StoreError

CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",  # days since noon of 4714 BC
}
"""Seconds since 1970, as each of them tells."""
BUSY_S = 5.0
"""How long one who finds SQLite's file locked waits."""
STATEMENT_S = 5
"""How long PostgreSQL may work on one statement."""


class Database:
    """What is at a SQLAlchemy URL: `sqlite:///file` or `postgresql+psycopg://...`.

    Raises:
        StoreError: there can be none at this URL.
    """

    def __init__(self, url: str) -> None:
        try:
            if "@" in (make_url(url).host or ""):
                raise ValueError(url)  # noqa: TRY301 -- a password with an @, the rest of which names no host
            self.engine: Engine = create_engine(url, pool_pre_ping=True, **_options(url))
        except ModuleNotFoundError as error:
            raise StoreError(f"REWRITE_ROLLOUTS: {error} (the extra is corewrite[postgres])") from error
        except (SQLAlchemyError, ValueError, TypeError):
            # The causes may quote what a password with special characters was taken for.
            raise StoreError(
                "REWRITE_ROLLOUTS: must be sqlite:///FILE or postgresql+psycopg://..., with every special "
                "character of user and password percent-encoded"
            ) from None
        if self.engine.driver == "psycopg":
            from app.rollout.postgres import BoundedConnection  # noqa: PLC0415 -- SQLite has no need of it

            def connect(_dialect: object, _record: object, words: Any, options: Any) -> BoundedConnection:
                return BoundedConnection.connect(*words, **options)

            event.listen(self.engine, "do_connect", connect)

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def insert(self, table: Table) -> Any:
        """An INSERT that can say what is to be done where the row is there already."""
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(table)

    def listed(self, column: Column[Any]) -> Any:
        """All values of a column in a group, in the order of the other columns; read with `unlisted`."""
        if self.engine.dialect.name == "postgresql":
            return func.array_agg(column)
        return func.json_group_array(column)

    def now(self) -> datetime:
        """Return the time of day by the database's own clock, which is one for all replicas.

        Raises:
            StoreError: the database is out of reach.
        """
        with self.begin() as connection:
            seconds = connection.scalar(text(CLOCKS[self.engine.dialect.name]))
        return datetime.fromtimestamp(float(seconds or 0.0), UTC)

    @contextmanager
    def begin(self, *, conflict: str | None = None) -> Iterator[Connection]:
        """A transaction; `conflict` says what a line that is there already means.

        Raises:
            RolloutError: a line is there already.
            StoreError: the database is out of reach.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            if conflict is None:
                raise StoreError(f"the store of rollouts: {error.orig}") from error
            raise RolloutError(conflict) from error
        except SQLAlchemyError as error:
            raise StoreError(f"the store of rollouts: {getattr(error, 'orig', None) or error}") from error


def unlisted(values: list[Any] | str) -> list[Any]:
    """What `Database.listed` has made."""
    found: list[Any] = json.loads(values) if isinstance(values, str) else values
    return found


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_S}}
    # A server that does not answer must not hold up those who follow it.
    server = f"-c statement_timeout={STATEMENT_S * 1000}"
    return {"connect_args": {"connect_timeout": 2, "options": server}, "pool_timeout": 2}
