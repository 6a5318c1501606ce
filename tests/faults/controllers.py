"""`corewrite control` as processes, and who of them holds the lease."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ports import free_port
from sqlalchemy import select
from waiting import wait_until

from app.rollout.database import Database
from app.rollout.members import Members
from app.rollout.plan import read_plan
from app.rollout.schema import upgrade
from app.rollout.store import RolloutStore
from app.rollout.tables import LEASES
from training.canary.processes import WALL_CLOCK_ALONE, libfaketime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECIDE_S = 0.2
DIGEST = "5e" * 32
PLAN = """
prepare_s = 0.0
[[steps]]
ratio = 0.5
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "strict"
better = "higher"
margin = 0.1
"""


@dataclass
class Controller:
    """One of those that may decide; `ahead` moves its clock by so much (as libfaketime reads it)."""

    database: str
    registry: Path
    ahead: str = "+0"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        values = {
            "ROLLOUTS": self.database,
            "REGISTRY": self.registry,
            "ROLLOUT_DECIDE_S": DECIDE_S,
            "PORT": self.port,
            "LOG_LEVEL": "error",
        }
        environment = {
            **os.environ,
            **{f"REWRITE_{name}": str(value) for name, value in values.items()},
        }
        if self.ahead != "+0":
            moved = {"LD_PRELOAD": str(libfaketime()), "FAKETIME": self.ahead}
            environment |= {**moved, **WALL_CLOCK_ALONE}
        self.process = subprocess.Popen([sys.executable, "-m", "app.cli", "control"], env=environment)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def deciding(*controllers: Controller) -> Iterator[None]:
    """Start them, the first one alone until it holds the lease; all are up then, and gone at the end."""
    first, *others = controllers
    try:
        first.start()
        wait_until(lambda: holder(first.database) is not None, within_s=60)
        for controller in others:
            controller.start()
        for controller in controllers:
            wait_until(controller.listens, within_s=60)
        yield
    finally:
        for controller in controllers:
            controller.kill()


def holder(url: str) -> str | None:
    """Who may decide; None: nobody was ever asked."""
    return None if (lease := _lease(url)) is None else lease[0]


def ends_in_s(url: str) -> float:
    """In how many seconds the lease runs out, by this process's clock."""
    lease = _lease(url)
    assert lease is not None
    return lease[1] - time.time()


def _lease(url: str) -> tuple[str, float] | None:
    database = Database(url)
    try:
        with database.begin() as connection:
            row = connection.execute(select(LEASES.c.holder, LEASES.c.until)).first()
            return None if row is None else (row.holder, row.until)
    finally:
        database.close()


def prepare(url: str) -> None:
    """Make the tables."""
    database = Database(url)
    upgrade(database)
    database.close()


def begin(url: str) -> None:
    """Start a rollout of something that a replica has loaded: all that is missing is a decision."""
    database = Database(url)
    Members(database).beat("replica", DIGEST, database.now())
    plan = read_plan(PLAN)
    RolloutStore(database).start("autumn", DIGEST, plan, who="ann", why="x", at=database.now())
    database.close()


def state(url: str) -> str | None:
    """Of the last rollout."""
    database = Database(url)
    latest = RolloutStore(database).deployment().latest
    database.close()
    return latest and latest.last.state
