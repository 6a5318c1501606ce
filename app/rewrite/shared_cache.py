"""L2: judged generations in Redis, which every replica reads and writes.

It can be wrong, slow, full or dead, and a request never learns: whatever happens here is a miss, within
`timeout_s`. A value is served only after all of it was checked against the key it was asked for
(`shared_entry`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from app.errors import CorewriteError
from app.rewrite.shared_entry import VERSION, decode, digest_of, encode
from app.telemetry import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import ConnectionPool

    from app.engines.breaker import Breaker, Pass
    from app.rewrite.answer import Judged
    from app.rewrite.generator import Key

Result = Literal["hit", "miss", "error", "skipped"]

PREFIX = f"corewrite:{VERSION}:"
# Connections: one command takes well under a millisecond, and a reader beyond them waits for its turn.
MAX_READS, MAX_WRITES = 16, 4
# Writes that may wait or run; about 1 kB each. Only a Redis that hangs meets it.
MAX_PENDING_WRITES = 256
# A Redis that fails is one line in so many seconds; the metric counts each.
LOG_EVERY_S = 10.0


class _NotAskedError(Exception):
    """Redis was not asked: the breaker is open, there was no turn in time, or the cache is closed."""

    def __init__(self) -> None:
        super().__init__("it kept failing and is left alone for a while")


class SharedCache:
    """Looks up and stores entries under a `Key`. Lives on one event loop.

    Args:
        url: redis://, rediss:// (TLS) or unix://, with user and password where needed. Never logged.
        ttl_s: seconds an entry lives in Redis.
        timeout_s: seconds one look-up or one write may take, connecting and waiting for a turn included.
        scope: fingerprint of all that an entry depends on beside its key. Replicas share equal scopes only.
        breaker: keeps a dead Redis from costing every request a timeout.
        on_result: told of each look-up: hit, miss, error (a failure, or a value that was refused), skipped
            (not tried); and of each write that is an error or skipped.
        clock: seconds, for the breaker.

    Raises:
        CorewriteError: the package `redis` is missing, or the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float,
        timeout_s: float,
        scope: str,
        breaker: Breaker,
        on_result: Callable[[Result], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = _pool(url)
        self._client = _client(self._pool)
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._timeout_s = timeout_s
        self._scope = scope
        self._breaker = breaker
        self._on_result = on_result
        self._clock = clock
        self._reads, self._writes = asyncio.Semaphore(MAX_READS), asyncio.Semaphore(MAX_WRITES)
        self._pending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._quiet_until_s = float("-inf")

    async def get(self, key: Key) -> Judged | None:
        """The entry for `key`, or None: there is none, it is no good, or Redis did not answer in time."""
        digest = digest_of(key, self._scope)
        try:
            value = await self._ask(self._reads, "GET", PREFIX + digest)
            judged = None if value is None else decode(value, digest=digest, key=key)
        except _NotAskedError:
            self._on_result("skipped")
            return None
        except Exception as error:  # noqa: BLE001 -- whatever Redis does or holds, a request goes on
            self._failed("read", error)
            return None
        self._on_result("miss" if judged is None else "hit")
        return judged

    def put(self, key: Key, judged: Judged) -> None:
        """Store in the background; let go of it where too many writes wait already."""
        if self._closed or len(self._pending) >= MAX_PENDING_WRITES:
            self._on_result("skipped")
            return
        task = asyncio.create_task(self._write(key, judged))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def flush(self) -> None:
        """Return when the writes pending now have ended, well or not; each takes `timeout_s` at most."""
        if self._pending:
            await asyncio.wait(tuple(self._pending))

    async def check(self) -> None:
        """Write something that is gone in a second, for those who would rather know before they begin.

        Raises:
            CorewriteError: Redis does not answer, or lets nothing be written; the message says why.
        """
        try:
            await self._ask(self._writes, "SET", PREFIX + "check", b"", "PX", 1000)
        except Exception as error:
            # Redis and its client name host and port at most; none quotes a password.
            raise CorewriteError(f"Redis takes no writes: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Leave pending writes `timeout_s` to end, then close all connections. Safe to call twice."""
        if self._pending:
            await asyncio.wait(tuple(self._pending), timeout=self._timeout_s)
        self._closed = True
        pending = tuple(self._pending)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        with suppress(Exception):  # what cannot be closed properly is dropped with the process
            async with asyncio.timeout(self._timeout_s):
                await self._pool.disconnect()

    async def _write(self, key: Key, judged: Judged) -> None:
        digest = digest_of(key, self._scope)
        try:
            value = encode(judged, digest=digest)
            await self._ask(self._writes, "SET", PREFIX + digest, value, "PX", self._ttl_ms)
        except _NotAskedError:
            self._on_result("skipped")
        except Exception as error:  # noqa: BLE001 -- as in `get`
            self._failed("write", error)

    async def _ask(self, turns: asyncio.Semaphore, *command: str | bytes | int) -> Any:
        """What Redis replies. Cancelled or late, the connection is dropped: its reply would be the next's."""
        given: Pass | None = None
        try:
            async with asyncio.timeout(self._timeout_s), turns:
                given = None if self._closed else self._breaker.admit(self._clock())
                if given is None:
                    raise _NotAskedError  # noqa: TRY301 -- only with a turn is it known whether the probe is ours
                reply = await self._client.execute_command(*command)
        except asyncio.CancelledError:
            if given is not None:
                self._breaker.gave_up(given)
            raise
        except Exception as error:
            if given is None:
                raise _NotAskedError from error
            self._breaker.failed(given, self._clock())
            raise
        self._breaker.succeeded(given)
        return reply

    def _failed(self, what: Literal["read", "write"], error: Exception) -> None:
        self._on_result("error")
        now_s = self._clock()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + LOG_EVERY_S
            LOGGER.warning("shared cache failed", exc_info=error, extra={"fields": {"detail": what}})


def _pool(url: str) -> ConnectionPool:
    try:
        # Here, because who has no Redis need not install it.
        from redis.asyncio import ConnectionPool  # noqa: PLC0415
        from redis.asyncio.connection import parse_url  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415
    except ImportError as error:
        raise CorewriteError("a shared cache needs the package redis: install corewrite[redis]") from error
    # Over the URL's own, so that nothing in it can undo them: `timeout_s` alone bounds a command, from
    # outside, and nothing is tried twice within it.
    ours: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "max_connections": MAX_READS + MAX_WRITES,
        "decode_responses": False,
        # RESP3 would cost two more round trips per connection and bring nothing that is used here.
        "protocol": 2,
    }
    try:
        pool = ConnectionPool(**{**parse_url(url), **ours})
        make_connection: Callable[[], object] = pool.make_connection
        make_connection()  # it connects to nothing, and finds an option that is none now instead of later
    except (ValueError, TypeError, AttributeError, RedisError):
        # The causes may quote what a password with a "/" was taken for.
        raise CorewriteError(
            "REWRITE_REDIS_URL: must be redis://, rediss:// or unix://, with every special character of user "
            "and password percent-encoded"
        ) from None
    return pool


def _client(pool: ConnectionPool) -> Any:
    from redis.asyncio import Redis  # noqa: PLC0415 -- as in `_pool`

    return Redis(connection_pool=pool)
