"""A deployment worth looking at: checkpoints with parents and reports, and a rollout that was counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from small_checkpoint import write_checkpoint

from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.registry.place import Place
from app.registry.store import Registry
from app.rollout.assignment import BUCKETS
from app.rollout.controller import Controller, Dealt
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import CANARY, MEASURES, Cell, members
from app.rollout.looks import LookStore
from app.rollout.members import Members
from app.rollout.plan import read_plan
from app.rollout.schema import upgrade
from app.rollout.state import Rollout, after
from app.rollout.store import RolloutStore

TOKEN = "a-token-of-administrators"  # noqa: S105 -- of tests
REPORTS = Path(__file__).parents[1] / "results" / "drill" / "verbose"
PLAN = """
planned_searches = 200000
stale_s = 864000
max_s = 1209600
prepare_s = 0
[[steps]]
ratio = 0.05
min_searches = 1000
min_s = 3600
[[steps]]
ratio = 0.25
min_searches = 20000
min_s = 21600
[[steps]]
ratio = 0.5
min_searches = 50000
min_s = 86400
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "strict"
better = "higher"
margin = 0.02
[[guardrails]]
metric = "fallback"
better = "lower"
scale = "absolute"
margin = 0.01
tolerated = 0.005
[[guardrails]]
metric = "latency_s"
better = "lower"
margin = 0.1
tolerated = 0.05
"""
DEALT = Dealt("corewrite", 0.0)
STABLE = {"changed": 0.30, "clicks": 0.5, "strict": 0.40, "fallback": 0.03}
CANARY_IS = {"changed": 0.27, "clicks": 0.5, "strict": 0.402, "fallback": 0.031}


@dataclass
class Site:
    """Of one folder: its registry, and its store of rollouts with a time of its own."""

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)
    wall: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=9))
    seconds: float = 0.0

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'rollouts.db'}"

    @property
    def options(self) -> dict[str, Any]:
        """Settings of a replica of this site, whose rollouts move only by hand."""
        (self.folder / "pulled").mkdir(exist_ok=True)
        return {
            "port": 0,
            "rollouts": self.url,
            "registry": str(self.folder / "registry"),
            "checkpoints": self.folder / "pulled",
            "admin_token": TOKEN,
            "rollout_controller": False,
            "rollout_poll_s": 0.05,
            "rollout_flush_s": 0.05,
        }

    def fill_registry(self, report: str = "gate-recovered.json") -> None:
        """The default checkpoint, two weeks made from it, one of them twice, and aliases."""
        registry = Registry(Place.at(str(self.folder / "registry")))
        self.digests["default"] = registry.push(DEFAULT_CHECKPOINT)
        parent = self.digests["default"]
        for name, window, gate in (
            ("week-1", ("2026-11-01", "2026-11-08"), report),
            ("week-2", ("2026-11-08", "2026-11-15"), report),
            ("week-2-long", ("2026-11-08", "2026-11-15"), "gate-hacked.json"),
        ):
            folder = write_checkpoint(
                self.folder / name,
                weights=name,
                checkpoint_id=name,
                parent=parent,
                reward_version="v1",
                data_window={
                    key: f"{day}T00:00:00Z" for key, day in zip(("first", "last"), window, strict=True)
                },
                training={"steps": 300, "learning_rate": 0.0001},
            )
            self.digests[name] = registry.push(folder, gate_report=REPORTS / gate)
            parent = self.digests["week-1"]
        # The same weights with a report, as a cycle pushes them: what the rollout is of can be loaded.
        self.digests["candidate"] = registry.push(DEFAULT_CHECKPOINT, gate_report=REPORTS / report)
        for alias, name in (("stable", "default"), ("candidate", "candidate"), ("last_good", "week-1")):
            registry.aliases.point(
                alias, self.digests[name], who="ann", why="the weekly cycle", when=self.wall
            )

    @contextmanager
    def store(self) -> Iterator[Database]:
        database = Database(self.url)
        try:
            upgrade(database)
            yield database
        finally:
            database.close()

    def launch(self, name: str = "autumn", looks: int = 10) -> None:
        """A rollout in its second step, as a controller brings it there that looks at what is counted."""
        with self.store() as database:
            store = RolloutStore(database)
            store.start(
                name,
                self.digests["candidate"],
                read_plan(PLAN),
                who="ann",
                why="the gate says PASS",
                at=self.wall,
            )
            self._order(store, "begin")
            controller = Controller(
                store=store,
                counts=CountStore(database),
                members=Members(database),
                looks=LookStore(database),
                dealt=DEALT,
                name="one",
                now=lambda: self.wall,
                clock=lambda: self.seconds,
                lease_s=1e9,
            )
            for look in range(2 * looks):
                minutes = 8 if look < looks else 25
                self.wall += timedelta(minutes=minutes)
                self.seconds += 60.0 * minutes
                self._search(database, _latest(store), seed=look)
                controller.decide()

    def _order(self, store: RolloutStore, order: Any) -> None:
        rollout = _latest(store)
        store.move(
            rollout, after(rollout, order, who="controller", why="1 replicas have loaded it", at=self.wall)
        )

    def _search(self, database: Database, rollout: Rollout, seed: int) -> None:
        step = rollout.last.step
        shown = members(rollout.split(DEALT.salt, DEALT.holdout_ratio, step))[CANARY]
        rng = np.random.default_rng(seed)
        searches = rng.poisson(12, BUCKETS)
        sums = np.zeros((BUCKETS, len(MEASURES)))
        sums[:, 0] = searches
        for name, rate in STABLE.items():
            sums[:, MEASURES.index(name)] = rng.binomial(searches, np.where(shown, CANARY_IS[name], rate))
        sums[:, MEASURES.index("latency_s")] = searches * rng.normal(
            np.where(shown, 0.047, 0.046), 0.002, BUCKETS
        )
        cells = {
            Cell(rollout.number, step, impacted=False, bucket=place): row for place, row in enumerate(sums)
        }
        CountStore(database).take({}, cells, self.wall)

    def move(self, order: Any) -> None:
        """As somebody else would, meanwhile."""
        with self.store() as database:
            self._order(RolloutStore(database), order)

    def rollout(self) -> Rollout:
        with self.store() as database:
            return _latest(RolloutStore(database))

    def history(self) -> list[tuple[str, str, str]]:
        """Who has done what, and why, the last one last."""
        with self.store() as database:
            store = RolloutStore(database)
            return [(line.order, line.who, line.why) for line in store.history(_latest(store).number)]

    def killed(self) -> bool:
        with self.store() as database:
            return RolloutStore(database).deployment().killed


def _latest(store: RolloutStore) -> Rollout:
    found = store.deployment().latest
    assert found is not None
    return found
