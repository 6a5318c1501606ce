"""The servers of one scenario, each a process of its own: replicas, their store, their Redis.

They are fresh, on free ports, in a folder of their own, and gone at the end, however it ends.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.registry.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from app.registry.place import Place
from app.registry.store import Registry
from loadtest.proxy import Way, way_to
from loadtest.scenarios import Scenario
from loadtest.sibling import make_sibling
from training.canary.postgres import PostgresServer, running_postgres
from training.canary.processes import Replica, free_port, libfaketime

TOKEN = "of servers that live for this load"  # noqa: S105
PATIENCE_S = 60.0
OK = 200
MB = 1_000_000


@dataclass
class Server(Replica):
    """One replica.

    Args:
        crashable: its engine dies while the file `crashing` says so.
        clocked: its clock can be moved; else it is the machine's.
    """

    crashable: bool = False
    clocked: bool = False

    @property
    def pid(self) -> int | None:
        """Of its process, while it runs."""
        return self.process.pid if self.process else None

    def limit_files(self, most_bytes: int) -> None:
        """Let no file of it grow beyond: what writes to a full disk sees the same error. -1: no limit."""
        if self.process is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    def readiness(self) -> dict[str, Any]:
        """What it says of itself. It blocks."""
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=PATIENCE_S) as answer:  # noqa: S310
            return dict(json.loads(answer.read()))

    def ask(self, path: str, body: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
        """Post something as an administrator; return status and answer. It blocks."""
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 -- our own
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def _module(self) -> list[str]:
        return super()._module() if self.crashable else ["app.cli", "serve"]

    def _moved_clock(self) -> dict[str, str]:
        # A library between the process and each look at its clock costs time.
        return super()._moved_clock() if self.clocked else {}


@dataclass
class Redis:
    """A real one, that keeps nothing."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return as soon as it runs: the service can wait for it."""
        words = f"redis-server --bind 127.0.0.1 --port {self.port} --appendonly no".split()
        words += ["--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(  # noqa: S603 -- Debian's
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def signal(self, number: signal.Signals) -> None:
        """Send it one."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """At once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Fleet:
    """All of it.

    Args:
        servers: the replicas.
        checkpoints: `first`, which serves at the start, and `second`, where there are two.
        database: URL of the store, past any proxy.
        address: of the second one in the registry.
        idlers: connections that only stand there, and what they are to hear.
    """

    folder: Path
    servers: list[Server]
    checkpoints: dict[str, Checkpoint]
    database: str
    address: str = ""
    redis: Redis | None = None
    postgres: PostgresServer | None = None
    proxy: Way | None = None
    idlers: list[tuple[socket.socket, bytes | None]] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Of the replicas that run."""
        return [server.pid for server in self.servers if server.pid is not None]


@contextmanager
def fleet(scenario: Scenario, folder: Path, common: Mapping[str, object]) -> Iterator[Fleet]:
    """Start what a scenario needs.

    Args:
        scenario: which.
        folder: of all files; it is made.
        common: settings of all servers, which those of the scenario overrule.

    Raises:
        ProcessError: something does not start; the logs in `folder` say why.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        made = Fleet(folder, [], {}, f"sqlite:///{folder}/rollouts.db")
        url = made.database
        if scenario.store == "postgres":
            made.postgres = stack.enter_context(running_postgres())
            made.database = url = made.postgres.database()
            if scenario.slow_store:
                made.proxy = stack.enter_context(way_to(made.postgres.port))
                url = url.replace(f":{made.postgres.port}/", f":{made.proxy.port}/")
        settings = {
            "rollouts": url,
            "admin_token": TOKEN,
            "exposure_key": TOKEN,
            "log_level": "warning",
            **common,
            **scenario.settings,
        }
        if scenario.redis:
            made.redis = Redis(folder)
            made.redis.start()
            stack.callback(made.redis.kill)
            settings["redis_url"] = f"redis://127.0.0.1:{made.redis.port}/0"
        if scenario.judged:
            made.checkpoints, made.address = _checkpoints(folder)
            settings |= {
                "checkpoint": made.checkpoints["first"].path,
                "checkpoints": folder / "checkpoints",
                "registry": folder / "registry",
            }
        crashable = any(incident.do == "engine_crash" for incident in scenario.incidents)
        for number in range(scenario.replicas):
            server = Server(
                f"replica-{number + 1}", folder, settings, crashable=crashable, clocked=scenario.moves_clocks
            )
            made.servers.append(server)
            stack.callback(server.kill)
            server.start()
        yield made


def missing(scenario: Scenario) -> list[str]:
    """Programs that a scenario needs and this machine lacks."""
    found = {
        "redis-server": shutil.which("redis-server"),
        "faketime": libfaketime(),
        "initdb": shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None),
    }
    return [program for program in scenario.needs if not found[program]]


def _checkpoints(folder: Path) -> tuple[dict[str, Checkpoint], str]:
    """Two of known, different answers, and the address of the second one in a registry, for rollouts."""
    default = load_checkpoint(DEFAULT_CHECKPOINT)
    (folder / "checkpoints").mkdir()
    made = {
        name: make_sibling(default, folder / "checkpoints" / name, seed=seed)
        for seed, name in enumerate(("first", "second"), start=1)
    }
    return made, Registry(Place.at(str(folder / "registry"))).push(made["second"].path)
