"""A real redis-server on a free port: killed, frozen and started again at will, nothing left behind."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ports import free_port
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class RedisServer:
    """`start` and `kill` may alternate; the port stays, the data goes with the process."""

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="corewrite-redis-")))
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not installed: apt-get install redis-server")
        arguments = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder))
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), *arguments, *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wait_until(self._answers)

    def kill(self) -> None:
        """As a machine that loses power: no goodbye, and nothing kept."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def freeze(self) -> None:
        """It takes connections and bytes, as the kernel does that for it, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | bytes) -> bytes:
        """The raw reply to one command, past any client: what a bystander would see."""
        words = [word.encode() if isinstance(word, str) else word for word in command]
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as connection:
            connection.sendall(request + b"*1\r\n$4\r\nQUIT\r\n")
            reply = b""
            while chunk := connection.recv(65536):
                reply += chunk
        return reply.removesuffix(b"+OK\r\n")

    def stored(self) -> list[bytes]:
        """Names of the shared cache's entries in database 0."""
        return [line for line in self.ask("KEYS", "*").split(b"\r\n") if line.startswith(b"corewrite:")]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()[0].decode()
        try:
            return bool(self.ask("PING"))
        except OSError:
            return False


@contextmanager
def running_redis(*options: str) -> Iterator[RedisServer]:
    """A started server with further command-line options; gone with its folder at the end."""
    server = RedisServer(options=options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)
