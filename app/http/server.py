"""uvicorn, taught to drain before it closes its sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from app.engines.memory import map_big_blocks
from app.errors import CorewriteError
from app.http.connection import limited

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from fastapi import FastAPI

    from app.http.lifecycle import Lifecycle
    from app.settings import Settings

# Longer than the 60 s after which common load balancers let go: they, not we, should close idle connections.
_KEEP_ALIVE_S = 75
# Answers are written within milliseconds of leaving admission; this only bounds clients that do not read.
_CLOSE_TIMEOUT_S = 5
# For so long a thread that computes in Python may keep the others waiting. At Python's own 5 ms the engine,
# whose steps take a few, waited for the event loop for a fifth of the time (docs/capacity.md).
_SWITCH_S = 0.0001


class DrainingServer(uvicorn.Server):
    """A server that drains on the first stop signal and stops at once on the second."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop on which to drain."""
        self._loop = asyncio.get_running_loop()
        map_big_blocks()
        sys.setswitchinterval(_SWITCH_S)
        await super().startup(sockets=sockets)
        # What has been loaded stays: full collections need not look at it again, at the cost of a request.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler, between two bytecodes of whatever runs."""
        if self._loop is None or self._lifecycle.status == "draining":
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        await self._lifecycle.drain()
        # Not uvicorn's handle_exit, which would raise the signal again at the end: this stop is a success.
        self.should_exit = True


def _take_all_files() -> int | None:
    """Raise the soft limit of open files to the hard one; return it, None where it is not known.

    Each connection is one. The soft limit is often 1024, for programs that use select(), and there idle
    connections would keep all others out.
    """
    # Not every system has these limits, or grants what it says.
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 -- as above

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most if most != resource.RLIM_INFINITY else None
    return None


class _NoTraceback(logging.Filter):
    """Keeps uvicorn from logging, as a traceback, a start-up error that the caller reports in one line."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__()
        self._app = app

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is worth a line."""
        return record.levelno < logging.ERROR or self._app.state.startup_error is None


def make_server(app: FastAPI, settings: Settings) -> DrainingServer:
    """A server for `app`, not started."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=limited(settings, app.state.metrics, files=_take_all_files()),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # app/http/middleware.py writes a better one
        server_header=False,
        proxy_headers=False,  # uvicorn believes them from loopback, where a sidecar's callers are
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
    )
    return DrainingServer(config, app.state.lifecycle)


def run_server(app: FastAPI, settings: Settings) -> None:
    """Serve until a stop signal, then drain.

    Raises:
        CorewriteError: it could not start.
    """
    quiet = _NoTraceback(app)
    logging.getLogger("uvicorn.error").addFilter(quiet)
    server = make_server(app, settings)
    try:
        server.run()
    except KeyboardInterrupt:
        pass  # the second signal: uvicorn stops at once and raises it again
    except SystemExit as stop:
        # uvicorn exits where it cannot bind; its log line has said why by then.
        if app.state.startup_error is None:
            raise CorewriteError(f"cannot listen on {settings.host}:{settings.port}") from stop
    finally:
        logging.getLogger("uvicorn.error").removeFilter(quiet)
    error = app.state.startup_error
    if error is not None:
        raise error
