"""A real PostgreSQL on a free port: killed and started again at will, nothing left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from training.canary.processes import free_port, until

SUPERUSER = "corewrite"


@dataclass
class PostgresServer:
    """`start` and `kill` may alternate; port and data stay."""

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="corewrite-postgres-")))
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0

    def make(self) -> None:
        """Lay out an empty cluster."""
        if user := _user():
            shutil.chown(self.folder, user)
        data = str(self.folder / "data")
        command = [_program("initdb"), "-D", data, "-U", SUPERUSER, "--auth=trust", "--no-sync"]
        subprocess.run(  # noqa: S603 -- our own
            command, check=True, capture_output=True, user=_user(), cwd=self.folder
        )

    def start(self) -> None:
        """Return when it answers."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        self.process = subprocess.Popen(  # noqa: S603 -- our own
            [
                *(_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)),
                *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_user(),
            cwd=self.folder,
        )
        until(self._answers, self.process)

    def kill(self) -> None:
        """At once; what was committed is there at the next start."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self, down_s: float) -> None:
        """Kill it, and start it again after so many seconds."""
        self.kill()
        time.sleep(down_s)
        self.start()

    def database(self) -> str:
        """Make a new, empty database; return its SQLAlchemy URL."""
        self.databases += 1
        name = f"test{self.databases}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/{name}"

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={SUPERUSER} dbname={database} connect_timeout=2"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A started server; gone with its folder at the end."""
    server = PostgresServer()
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


def _program(name: str) -> str:
    """Debian keeps all but the client out of the path."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: apt-get install postgresql")
    return found


def _user() -> str | None:
    """Who runs it: it refuses to be root's."""
    if os.getuid() != 0:
        return None
    return "postgres" if "postgres" in {one.pw_name for one in pwd.getpwall()} else "nobody"
