"""A way to a server that can be made slow, silent or torn: a TCP proxy in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

PIECE_BYTES = 64 << 10
TORN = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closed by a reset


@dataclass
class Way:
    """The way to `target`, a port of this machine. What is changed holds for open connections too.

    `latency_s` is added to each piece in either direction, `bytes_per_s` bounds each on the way back.
    After `silence`, connections are taken and nothing goes either way; after `tear`, they are reset at once.
    """

    target: int
    port: int = 0  # it is dealt one when it starts
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    torn: bool = False

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: asyncio.Event  # while it is not silent
        self._connections: set[asyncio.Task[None]] = set()
        self._sockets: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Return when it listens."""
        self._thread.start()
        self._do(self._serve())

    def silence(self) -> None:
        """Let nothing through until `speak`."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def speak(self) -> None:
        """Let through again, what waits too."""
        self._loop.call_soon_threadsafe(self._open.set)

    def tear(self) -> None:
        """Reset all connections, and each new one until `mend`."""
        self.torn = True
        self._do(self._reset())

    def mend(self) -> None:
        """Be as good as no proxy."""
        self.latency_s, self.bytes_per_s, self.torn = 0.0, None, False
        self.speak()

    def stop(self) -> None:
        """Cut all connections; return when the thread has ended."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _serve(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        self._sockets.add(writer)
        there = None
        try:
            await self._open.wait()
            if self.torn:
                _tear(writer)
                return
            answers, there = await asyncio.open_connection("127.0.0.1", self.target)
            self._sockets.add(there)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, there, back=False))
                ways.create_task(self._carry(answers, writer, back=True))
        except* (OSError, asyncio.CancelledError):
            pass  # the server is gone, or we are
        finally:
            for end in (writer, there):
                if end is not None:
                    end.close()
                    self._sockets.discard(end)
            self._connections.discard(task)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, back: bool) -> None:
        while piece := await source.read(PIECE_BYTES):
            await self._open.wait()
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if back and self.bytes_per_s is not None:
                for byte in range(len(piece)):
                    target.write(piece[byte : byte + 1])
                    await target.drain()
                    rate = self.bytes_per_s
                    await asyncio.sleep(0 if rate is None else 1 / rate)
            else:
                target.write(piece)
                await target.drain()
        target.close()  # one side has said all: these protocols say nothing to a closed ear

    async def _reset(self) -> None:
        for writer in tuple(self._sockets):
            _tear(writer)

    async def _end(self) -> None:
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


def _tear(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, TORN)
    writer.transport.abort()


@contextmanager
def way_to(port: int) -> Iterator[Way]:
    """A proxy to a port, gone at the end."""
    way = Way(port)
    way.start()
    try:
        yield way
    finally:
        way.stop()
