"""Replicas of the service as processes of their own: started, killed, started again, their clocks moved."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

PATIENCE_S = 120.0
WALL_CLOCK_ALONE = {
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as for a real clock that somebody sets
    # Else waits for Python's lock do not end in time, and a thread may wait seconds for its turn.
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
}
"""How libfaketime is to move a clock."""


class ProcessError(Exception):
    """A process has ended, or does not answer."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Return when it is true.

    Raises:
        ProcessError: it does not become true, or the process that it waits for has ended.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if process is not None and process.poll() is not None:
            raise ProcessError(f"{process.args!r} has ended with {process.returncode}")
        if time.monotonic() > end:
            raise ProcessError(f"waited for {PATIENCE_S:g} s in vain")
        time.sleep(0.05)


@dataclass
class Replica:
    """One replica; `start` and `kill` may alternate, its port stays.

    Args:
        name: of its log.
        folder: for the log, and what moves its clock and crashes its engine.
        settings: of the service, by name.
    """

    name: str
    folder: Path
    settings: Mapping[str, object]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def crashing(self) -> Path:
        """While this file has a checkpoint's digest in it, the engine with that checkpoint dies."""
        return self.folder / f"{self.name}.crash"

    @property
    def _clock(self) -> Path:
        return self.folder / f"{self.name}.clock"

    def start(self) -> None:
        """Return when it is ready. Raises ProcessError where it will not be."""
        values = {"port": self.port, **self.settings}
        told = {f"REWRITE_{name.upper()}": str(value) for name, value in values.items()}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 -- our own
                [sys.executable, "-m", *self._module()],
                env={**os.environ, **told, **self._moved_clock()},
                stdout=log,
                stderr=log,
            )
        until(self._is_ready, self.process)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, by default at once, as a machine that is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def move_clock(self, seconds: int) -> None:
        """Put its clock so far from the right time.

        Raises:
            ProcessError: what moves clocks is not installed.
        """
        if seconds and libfaketime() is None:
            raise ProcessError("no libfaketime: apt-get install faketime")
        part = self._clock.with_suffix(".part")
        part.write_text(f"{seconds:+d}\n", encoding="ascii")
        part.replace(self._clock)

    def _module(self) -> list[str]:
        """What is run, with its arguments."""
        return ["training.canary.crashing", str(self.crashing)]

    def _moved_clock(self) -> dict[str, str]:
        """Environment in which `move_clock` has an effect."""
        self.move_clock(0)
        library = libfaketime()
        if library is None:
            return {}
        file = {"FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_CACHE_DURATION": "1"}
        return {"LD_PRELOAD": library, **file, **WALL_CLOCK_ALONE}

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == HTTPStatus.OK)
        except (urllib.error.URLError, OSError):
            return False


def libfaketime() -> str | None:
    """Where Debian has it (apt-get install faketime)."""
    if shutil.which("faketime") is None:
        return None
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
