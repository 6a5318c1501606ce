"""What one connection may do before, between and after its requests: bounds that uvicorn does not have.

httptools keeps a header in memory until its end, and copies it at each read: 100 MB of one stop every other
request for as long as they last. Nothing here looks at single bytes; a request whose head comes in one piece
costs a few comparisons.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.http.middleware import PROBES

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.settings import Settings
    from app.telemetry import Metrics

Cause = Literal[
    "malformed", "url_too_long", "head_too_large", "too_slow", "too_many", "not_reading", "pipelined"
]
# Connections beyond the limit that are still told so, and may ask for health; any more are cut off unheard.
TOLD_SO = 32
# Seconds in which these have to ask: who holds such a place and says nothing keeps out who asks for health.
_TOLD_SO_S = 1.0
# Files that are no connection of a client's: logs, store, Redis, a fleet, checkpoints; and those told so.
_OTHER_FILES = 100 + TOLD_SO
# Requests that may wait on one connection for those before; clients of today send none ahead.
_MAX_PIPELINED = 64
# A body sent a byte at a time has 5 bytes of framing for each.
_FRAMING_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings of the same names say."""

    max_connections: int
    max_header_bytes: int
    max_headers: int
    max_url_bytes: int
    header_timeout_s: float
    send_timeout_s: float
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class _Refusal:
    cause: Cause
    status: int
    word: str
    detail: str


class _RefusedError(Exception):
    """Leaves a callback of the parser, which ends the connection."""


_MALFORMED = _Refusal("malformed", 400, "malformed_http", "not HTTP/1.1")
_URL = _Refusal("url_too_long", 414, "url_too_long", "url: longer than this server reads")
_HEAD = _Refusal("head_too_large", 431, "headers_too_large", "headers: more than this server reads")
_SLOW = _Refusal("too_slow", 408, "headers_timeout", "headers: not received in time")
_PIPELINED = _Refusal("pipelined", 429, "overloaded", "too many requests sent ahead on one connection")


def limited(settings: Settings, metrics: Metrics, *, files: int | None) -> type[asyncio.Protocol]:
    """The protocol for `uvicorn.Config(http=...)`, bounded as the settings say.

    `files` is how many the process may have open, of which each connection is one; None: any number.
    """
    most = settings.max_connections
    limits = Limits(
        max_connections=most if files is None else max(min(most, files - _OTHER_FILES), 1),
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        max_url_bytes=settings.max_url_bytes,
        header_timeout_s=settings.header_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        retry_after_s=settings.retry_after_s,
    )
    made = partial(
        Connection, limits=limits, on_refused=lambda cause: metrics.refused_connections.labels(cause).inc()
    )
    return cast("type[asyncio.Protocol]", made)  # uvicorn only calls it


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's, within `limits`; `on_refused` is told the cause of each refusal."""

    def __init__(self, *args: Any, limits: Limits, on_refused: Callable[[Cause], None], **named: Any) -> None:
        super().__init__(*args, **named)
        self._limits = limits
        self._on_refused = on_refused
        self._refusal: _Refusal | None = None
        self._ended = False
        self._excess = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._in_message = self._in_head = False
        self._read = b""
        self._unaccounted_bytes = 0  # of this message, that are no body; not those of the read it began in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, or tell it that there are too many."""
        super().connection_made(transport)
        over = len(self.connections) - self._limits.max_connections
        if over > TOLD_SO:
            self._on_refused("too_many")
            transport.abort()
            return
        if over > 0:
            self._excess = True
            self.app = partial(self._only_health, self.app)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timers."""
        self._clear_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and see whether it is too much or too slow."""
        if self._ended:
            return
        self._read = data
        self._unaccounted_bytes += len(data)
        super().data_received(data)
        if self._in_message:
            if self._unaccounted_bytes > self._limits.max_header_bytes:
                self._refuse(_URL if self._in_head and len(self.url) > self._limits.max_url_bytes else _HEAD)
            elif len(self.headers) > self._limits.max_headers:  # such as come after a chunked body
                self._refuse(_HEAD)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._unaccounted_bytes = 0

    def on_headers_complete(self) -> None:
        """Look at the head as a whole, then let uvicorn begin the request."""
        limits = self._limits
        if len(self.url) > limits.max_url_bytes:
            self._raise(_URL)
        if len(self.headers) > limits.max_headers:
            self._raise(_HEAD)
        if self._unaccounted_bytes + len(self._read) > limits.max_header_bytes:
            exact = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if exact > limits.max_header_bytes:
                self._raise(_HEAD)
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._raise(_PIPELINED)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._raise(_MALFORMED)
            return  # and come again, without the header that asks for it
        super().on_headers_complete()
        self._in_head = False
        self._unaccounted_bytes = 0
        self._clear_timer()
        if self._excess:
            self._newest().keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take what is body off the count."""
        self._unaccounted_bytes = max(0, self._unaccounted_bytes - _FRAMING_PER_BYTE * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End counting."""
        if not self.parser.should_upgrade():
            self._in_message = False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or less long for the rest of one that is answered already."""
        super().on_response_complete()
        if self._in_message and self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where the parser has given up; `msg` is its own and always the same."""
        del msg
        self._refuse(self._refusal or _MALFORMED)

    def _unsupported_upgrade_warning(self) -> None:
        """Read the request again as if it had not asked: the parser drops a body behind an upgrade.

        Java's own client asks for HTTP/2 in this way with every first request.
        """
        offset = getattr(sys.exception(), "args", (len(self._read),))[0]
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        ]
        for name, value in self.headers:
            if name == b"connection":
                lines += [b"connection: close"] if b"close" in value.lower() else []
            elif name not in {b"upgrade", b"http2-settings"}:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._in_message = False
        self._read = b"\r\n".join((*lines, b"", b"")) + self._read[offset:]
        super().data_received(self._read)

    def pause_writing(self) -> None:
        """Give a client that does not read its answers some time, then cut it off."""
        super().pause_writing()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits.send_timeout_s, self._cut_off)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that has never read its last answer would not be closed by asking."""
        if self.transport.get_write_buffer_size():
            self._cut_off()
        else:
            super().timeout_keep_alive_handler()

    def _cut_off(self) -> None:
        self._on_refused("not_reading")
        self.transport.abort()

    def _expect_head(self) -> None:
        if self._head_timer is None and self.timeout_keep_alive_task is None:
            most_s = self._limits.header_timeout_s
            most_s = min(most_s, _TOLD_SO_S) if self._excess else most_s
            self._head_timer = self.loop.call_later(most_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(_SLOW)
        elif self.cycle is None or self.cycle.response_complete:
            self._on_refused("too_slow")
            self.transport.close()

    def _clear_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _newest(self) -> Any:
        """The request that came last: behind those that wait in the pipeline, newest first."""
        return self.pipeline[0][0] if self.pipeline else self.cycle

    def _raise(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        raise _RefusedError

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer where nobody else does, and end the connection."""
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        self._on_refused(refusal.cause)
        newest = self._newest()
        waiting = newest is not None and not newest.response_complete
        if self._in_message and not self._in_head:  # it is the body of the newest request
            newest.disconnected = True
            newest.message_event.set()
            if waiting and not newest.response_started and not self.pipeline:
                self._write(refusal)
            self.transport.close()
        elif waiting:  # what came before gets its answer, and the connection ends with that
            newest.keep_alive = False
        else:
            self._write(refusal)
            self.transport.close()

    def _write(self, refusal: _Refusal) -> None:
        body = to_json({"error": refusal.word, "detail": refusal.detail})
        retry = f"retry-after: {self._limits.retry_after_s}\r\n" if refusal is _PIPELINED else ""
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{retry}"
        self.transport.write(
            STATUS_LINE[refusal.status] + head.encode() + b"connection: close\r\n\r\n" + body
        )

    async def _only_health(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what a probe asks, so that a full server is not taken for a dead one; 503 to the rest."""
        if scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        self._on_refused("too_many")
        body = to_json({"error": "overloaded", "detail": "too many connections are open"})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(self._limits.retry_after_s).encode()),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
