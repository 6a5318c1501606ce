"""What is done to servers while the load goes on, by the names that scenarios use. All of it blocks."""

from __future__ import annotations

import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial

from loadtest.fleet import MB, OK, Fleet, Server
from loadtest.scenarios import Deed, Incident
from training.canary.processes import ProcessError, until

SLOW_S = 0.1
"""Of each chunk to and from the store: some hundred milliseconds a transaction, as from another country."""
IDLERS = 500
"""For each replica; tests/faults has ten thousand."""
TOO_SLOW = b"HTTP/1.1 408"
PATIENCE_S = 10.0
HALF_AN_HOUR_S = 1_800
WHO = "the load"
PLAN = """
# Half of the clients at once, and nothing decides on it: the load takes it back itself.
prepare_s = 0.0
[[steps]]
ratio = 0.5
min_searches = 1_000_000
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "clicks"
better = "higher"
margin = 1.0
tolerated = 1.0
"""


@dataclass(frozen=True, slots=True)
class Happened:
    """What came of an incident; times in seconds of the load's clock.

    Args:
        refused: what the service said where it would not do it.
    """

    incident: Incident
    start_s: float
    end_s: float
    refused: str | None

    @property
    def as_meant(self) -> bool:
        """Whether it was refused exactly where it had to be."""
        return (self.refused is not None) == self.incident.fails


def act(fleet: Fleet, incident: Incident, clock: Callable[[], float]) -> Happened:
    """Do it; return when it is done, or refused."""
    began = clock()
    try:
        refused = DEEDS[incident.do](fleet, incident.to)
    except (ProcessError, OSError) as error:  # nobody there to ask, or a server that does not start again
        refused = f"{type(error).__name__}: {error}"
    return Happened(incident, began, clock(), refused)


def _swap(fleet: Fleet, to: str) -> str | None:
    refused = [_asked(server, "/admin/checkpoints/activate", {"id": to}) for server in fleet.servers]
    return next((why for why in refused if why), None)


def _rollout_start(fleet: Fleet, _to: str) -> str | None:
    asked = {
        "checkpoint": fleet.address,
        "plan": PLAN,
        "ungated": True,
        "name": f"load-{time.monotonic_ns()}",
    }
    return _order(fleet, "start", asked)


def _order(fleet: Fleet, word: str, asked: Mapping[str, object]) -> str | None:
    return _asked(fleet.servers[0], f"/v1/admin/rollout/{word}", {"who": WHO, "why": "a scenario", **asked})


def _asked(server: Server, path: str, body: Mapping[str, object]) -> str | None:
    status, told = server.ask(path, body)
    return None if status == OK else f"{status}: {told.get('detail')}"


def _redis(number: signal.Signals) -> Callable[[Fleet, str], None]:
    def send(fleet: Fleet, _to: str) -> None:
        if fleet.redis is not None:
            fleet.redis.signal(number)

    return send


def _redis_kill(fleet: Fleet, _to: str) -> None:
    if fleet.redis is not None:
        fleet.redis.kill()


def _redis_start(fleet: Fleet, _to: str) -> None:
    if fleet.redis is not None:
        fleet.redis.start()


def _postgres_kill(fleet: Fleet, _to: str) -> None:
    if fleet.postgres is not None:
        fleet.postgres.kill()


def _postgres_start(fleet: Fleet, _to: str) -> None:
    if fleet.postgres is not None:
        fleet.postgres.start()


def _store(delay_s: float) -> Callable[[Fleet, str], None]:
    def slow(fleet: Fleet, _to: str) -> None:
        if fleet.proxy is not None:
            fleet.proxy.latency_s = delay_s

    return slow


def _engine_crash(fleet: Fleet, _to: str) -> None:
    for server in fleet.servers:
        server.crashing.write_text("default", encoding="ascii")


def _engine_heal(fleet: Fleet, _to: str) -> None:
    for server in fleet.servers:
        server.crashing.unlink()


def _registry_away(fleet: Fleet, _to: str) -> None:
    (fleet.folder / "checkpoints").rename(fleet.folder / "checkpoints.away")


def _registry_back(fleet: Fleet, _to: str) -> None:
    (fleet.folder / "checkpoints.away").rename(fleet.folder / "checkpoints")


def _disk_full(fleet: Fleet, _to: str) -> None:
    for server in fleet.servers:
        server.limit_files(MB)


def _disk_free(fleet: Fleet, _to: str) -> str | None:
    """Refused where the disk has not been full for the canary, or it would not have been fetched."""
    loaded = [server.name for server in fleet.servers if server.readiness()["rollouts"]["canary"]]
    for server in fleet.servers:
        server.limit_files(-1)
    return f"{', '.join(loaded)} had fetched the canary" if loaded else None


def _clock(seconds: int) -> Callable[[Fleet, str], None]:
    """Returns as soon as each server's clock is there, by the date of its answers; to the half of an hour."""

    def moved(server: Server) -> bool:
        with urllib.request.urlopen(f"{server.url}/livez", timeout=PATIENCE_S) as answer:  # noqa: S310 -- our own
            told = parsedate_to_datetime(answer.headers["date"]).timestamp()
        return abs(told - time.time() - seconds) < HALF_AN_HOUR_S

    def move(fleet: Fleet, _to: str) -> None:
        for server in fleet.servers:
            server.move_clock(seconds)
            until(partial(moved, server), server.process)

    return move


def _connect(begun: bytes, answer: bytes | None) -> Callable[[Fleet, str], None]:
    """Connections that send so much and then nothing; by the time of `disconnect` they have that answer."""

    def connect(fleet: Fleet, _to: str) -> None:
        for server in fleet.servers:
            for _ in range(IDLERS):
                idler = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
                fleet.idlers.append((idler, answer))
                idler.sendall(begun)

    return connect


def _disconnect(fleet: Fleet, _to: str) -> str | None:
    astray = [heard for idler, answer in fleet.idlers if (heard := _heard(idler)) != answer]
    for idler, _ in fleet.idlers:
        idler.close()
    fleet.idlers.clear()
    return f"{len(astray)} of the idle connections have heard otherwise, as {astray[0]!r}" if astray else None


def _heard(idler: socket.socket) -> bytes | None:
    """What it was told at first; nothing, b"", where it was closed, None where it stands there still."""
    idler.settimeout(0)
    try:
        return idler.recv(len(TOO_SLOW))
    except BlockingIOError:
        return None


DEEDS: Mapping[Deed, Callable[[Fleet, str], str | None]] = {
    "swap": _swap,
    "rollout_start": _rollout_start,
    "rollout_rollback": lambda fleet, _to: _order(fleet, "rollback", {}),
    "redis_kill": _redis_kill,
    "redis_start": _redis_start,
    "redis_stop": _redis(signal.SIGSTOP),
    "redis_continue": _redis(signal.SIGCONT),
    "postgres_kill": _postgres_kill,
    "postgres_start": _postgres_start,
    "store_slow": _store(SLOW_S),
    "store_fast": _store(0.0),
    "engine_crash": _engine_crash,
    "engine_heal": _engine_heal,
    "replica_kill": lambda fleet, _to: fleet.servers[-1].kill(),
    "replica_start": lambda fleet, _to: fleet.servers[-1].start(),
    "registry_away": _registry_away,
    "registry_back": _registry_back,
    "disk_full": _disk_full,
    "disk_free": _disk_free,
    "clock_ahead": _clock(86_400),
    "clock_back": _clock(-86_400),
    "clock_right": _clock(0),
    "connect_idle": _connect(b"", None),
    "connect_slow": _connect(
        b"POST /v1/rewrite HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{", TOO_SLOW
    ),
    "disconnect": _disconnect,
}
