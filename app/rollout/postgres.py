"""Connections to PostgreSQL that wait for an answer so long and no longer.

The server's own `statement_timeout` is of no use where the server, or what lies between, lives and is silent:
then the kernel keeps the connection, no keepalive fails, and libpq waits for good. What waits here holds up a
flush of counts, and with it every event that is to be acknowledged.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import Connection, OperationalError

from app.rollout.database import STATEMENT_S

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")

ANSWER_S = STATEMENT_S + 1.0
"""So long an answer may take, whole: where the server gives up by itself, it is heard."""


class BoundedConnection(Connection[Any]):
    """A connection that is closed when an answer does not come.

    Raises:
        OperationalError: likewise.
    """

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """See `psycopg.Connection.wait`, which looks after `gen` ten times a second."""
        try:
            return super().wait(bounded(gen, ANSWER_S), *arguments, **options)
        except TimeoutError as error:
            self.close()  # what comes yet is no answer to anything that is asked next
            raise OperationalError(f"no answer within {ANSWER_S:g} s") from error


def bounded(generator: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Do as a generator does; raises TimeoutError where it still waits after so many seconds."""
    end = monotonic() + seconds
    try:
        wanted = next(generator)
        while True:
            ready = yield wanted
            if not ready and monotonic() > end:
                raise TimeoutError
            wanted = generator.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result
