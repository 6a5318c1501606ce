"""The rollouts that the settings ask for."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from app.errors import CheckpointError, StoreError
from app.registry.place import Place
from app.registry.store import Registry
from app.rewrite.cache import LruCache
from app.rewrite.lineup import Serving, started
from app.rollout.controller import Controller, Dealt
from app.rollout.counter import Counter
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.follower import Follower
from app.rollout.looks import LookStore
from app.rollout.members import Members
from app.rollout.orders import Orders
from app.rollout.replica import RolloutReplica
from app.rollout.schema import upgrade
from app.rollout.store import RolloutStore
from app.telemetry import bind

if TYPE_CHECKING:
    from app.contracts.manifest import Digest
    from app.engines.supervised import SupervisedEngine
    from app.registry.served import ServedCheckpoint
    from app.rewrite.lineup import Lineups
    from app.rollout.state import Deployment, Rollout
    from app.rollout.traffic import Dealing, Traffic
    from app.settings import Settings
    from app.telemetry import Metrics

LEASES = 3
"""So many decisions a controller may miss before another one takes its place."""


def make_rollouts(
    settings: Settings,
    *,
    lineups: Lineups,
    traffic: Traffic,
    dealt: Callable[[Deployment], Dealing],
    engine_for: Callable[[ServedCheckpoint], SupervisedEngine],
    metrics: Metrics,
) -> RolloutReplica:
    """Return what this replica does about rollouts, not started.

    Raises:
        StoreError: there can be no store at this URL.
    """
    database = _database(settings)
    store, counts, members = RolloutStore(database), CountStore(database), Members(database)
    name = process_name()
    key = settings.exposure_key
    clock = time.monotonic
    counter = Counter(
        counts,
        key=sha256(key.get_secret_value().encode()).digest() if key else secrets.token_bytes(32),
        memory=LruCache(max_entries=settings.exposure_memory, ttl_s=EXPOSURE_S, clock=clock),
        now=database.now,
        flush_s=settings.rollout_flush_s,
        on_known=metrics.events.labels("known").inc,
    )
    follower = Follower(
        _Source(store, members, name, database.now),
        traffic=traffic,
        lineups=lineups,
        dealt=dealt,
        load=_Loader(settings, engine_for).load,
        kill_file=settings.kill_file,
        now=_now,
        poll_s=settings.rollout_poll_s,
    )
    for gauge, value in (
        (metrics.canary_ratio, lambda: traffic.dealing.split.canary_ratio),
        (metrics.canary_loaded, lambda: follower.loaded is not None),
        (metrics.promoted_missing, lambda: follower.lacks_stable),
        (metrics.killed, lambda: traffic.killed),
        (metrics.rollout_store, lambda: follower.sight.why is None),
    ):
        bind(gauge, value)
    return RolloutReplica(
        database,
        follower=follower,
        counter=counter,
        controller=make_controller(settings, database, name) if settings.rollout_controller else None,
        orders=make_orders(settings, database),
        decide_s=settings.rollout_decide_s,
        on_decision=lambda result: metrics.decisions.labels(result).inc(),
    )


def process_name() -> str:
    """Return a name that no other process has: a replica after a restart has loaded nothing."""
    return f"{socket.gethostname()}-{secrets.token_hex(4)}"


def make_controller(settings: Settings, database: Database, name: str) -> Controller:
    """Return what decides on the rollouts of a store, as one of those that may."""
    return Controller(
        store=RolloutStore(database),
        counts=CountStore(database),
        members=Members(database),
        looks=LookStore(database),
        dealt=Dealt(settings.assignment_salt, settings.holdout_ratio),
        name=name,
        now=database.now,
        clock=time.monotonic,
        lease_s=LEASES * settings.rollout_decide_s,
        on_promoted=partial(_point, settings),
    )


EXPOSURE_S = 3600.0
"""A search whose events come later than this needs their token."""


def open_store(settings: Settings) -> Database:
    """Return the store of the settings, its tables brought up to this version. It blocks.

    Raises:
        StoreError: there is none at this URL.
    """
    database = _database(settings)
    upgrade(database)
    return database


def _database(settings: Settings) -> Database:
    if settings.rollouts is None:
        raise StoreError("set REWRITE_ROLLOUTS to where rollouts are kept")
    return Database(settings.rollouts.get_secret_value())


def make_orders(settings: Settings, database: Database) -> Orders:
    """Return what people may ask of rollouts, in a store."""
    return Orders(
        RolloutStore(database),
        CountStore(database),
        Members(database),
        LookStore(database),
        Dealt(settings.assignment_salt, settings.holdout_ratio),
        partial(_find, settings),
        database.now,
    )


def _find(settings: Settings, reference: str) -> tuple[Digest, str | None]:
    registry = _registry(settings)
    digest = registry.resolve(reference)
    report = registry.gate_report(registry.stored(digest))
    return digest, None if report is None else str(json.loads(report)["verdict"])


def _point(settings: Settings, promoted: Rollout) -> None:
    """Point `stable` to what was promoted, and `last_good` to what was stable before.

    Who goes back to `last_good` leaves it where it is: what was stable until then is what was bad.
    """
    aliases, at = _registry(settings).aliases, _now()
    why = f"{promoted.id}: {promoted.last.why}"
    before, good = aliases.current("stable"), aliases.current("last_good")
    back = good is not None and good.to_digest == promoted.checkpoint
    if before is not None and before.to_digest not in {None, promoted.checkpoint} and not back:
        aliases.point("last_good", str(before.to_digest), who=promoted.last.who, why=why, when=at)
    aliases.point("stable", promoted.checkpoint, who=promoted.last.who, why=why, when=at)


def _registry(settings: Settings) -> Registry:
    if settings.registry is None:
        raise CheckpointError("set REWRITE_REGISTRY to where the checkpoints of rollouts are")
    return Registry(Place.at(settings.registry), signers=settings.signers)


class _Source:
    """The store, as one replica follows it."""

    def __init__(self, store: RolloutStore, members: Members, name: str, now: Callable[[], datetime]) -> None:
        self._store, self._members, self._name, self._now = store, members, name, now

    def deployment(self) -> Deployment:
        """See `app.rollout.follower.Source`."""
        return self._store.deployment()

    def beat(self, loaded: Digest | None) -> None:
        """See `app.rollout.follower.Source`."""
        self._members.beat(self._name, loaded, self._now())


class _Loader:
    """Fetches checkpoints from the registry, and starts engines with them."""

    def __init__(
        self, settings: Settings, engine_for: Callable[[ServedCheckpoint], SupervisedEngine]
    ) -> None:
        self._settings, self._engine_for = settings, engine_for
        self._folder = settings.checkpoints

    async def load(self, digest: Digest) -> Serving:
        """See `app.rollout.follower.Follower`."""
        return await started(await asyncio.to_thread(self._fetch, digest), self._engine_for)

    def _fetch(self, digest: Digest) -> ServedCheckpoint:
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="corewrite-"))
        return _registry(self._settings).pull_once(digest, self._folder / digest)


def _now() -> datetime:
    return datetime.now(UTC)
