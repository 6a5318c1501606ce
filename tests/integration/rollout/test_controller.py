"""Decisions on rollouts, from what real stores hold to the transitions they are left with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from app.errors import RegistryError
from app.rollout.assignment import BUCKETS
from app.rollout.controller import Controller, Dealt
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import CANARY, MEASURES, Cell, members
from app.rollout.looks import LookStore
from app.rollout.members import Members
from app.rollout.plan import read_plan
from app.rollout.state import Order, Rollout, after
from app.rollout.store import RolloutStore

A = "a" * 64
PLAN = read_plan(
    """
    max_s = 1000.0
    stale_s = 10.0
    prepare_s = 5.0
    planned_searches = 50000
    [[steps]]
    ratio = 0.1
    min_searches = 1000
    min_s = 60.0
    [[steps]]
    ratio = 0.5
    min_searches = 1000
    min_s = 60.0
    [[steps]]
    ratio = 1.0
    [[guardrails]]
    metric = "strict"
    better = "higher"
    margin = 0.05
    """
)
DEALT = Dealt("salt", 0.02)


class Site:
    """A store, a controller, and time that goes as it is told to: on the wall, and by the stopwatch."""

    def __init__(self, database: Database) -> None:
        self.store, self.counts, self.members, self.looks = (
            kind(database) for kind in (RolloutStore, CountStore, Members, LookStore)
        )
        self.wall = datetime(2026, 11, 22, 8, tzinfo=UTC)
        self.seconds = 0.0
        self.controller = self.another("one")

    def another(self, name: str, **how: Any) -> Controller:
        return Controller(
            store=self.store,
            counts=self.counts,
            members=self.members,
            looks=self.looks,
            dealt=DEALT,
            name=name,
            now=lambda: self.wall,
            clock=lambda: self.seconds,
            lease_s=30.0,
            **how,
        )

    def passes(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.seconds += seconds

    def start(self) -> Rollout:
        return self.store.start("autumn", A, PLAN, who="ann", why="PASS", at=self.wall)

    @property
    def rollout(self) -> Rollout:
        found = self.store.deployment().latest
        assert found is not None
        return found

    def running(self) -> Rollout:
        self.start()
        self.order("begin")
        self.controller.decide()
        return self.rollout

    def order(self, order: Order) -> None:
        rollout = self.rollout
        self.store.move(rollout, after(rollout, order, who="bo", why="x", at=self.wall))

    def search(self, *, step: int = 0, searches: int = 10, changed: float = 0.3, strict: float = 0.4) -> None:
        """Each bucket searches; `changed` and `strict` are the canary's rates, .3 and .4 are stable's."""
        shown = members(self.rollout.split(DEALT.salt, DEALT.holdout_ratio, step))[CANARY]
        rng = np.random.default_rng(step)
        sums = np.zeros((BUCKETS, len(MEASURES)))
        sums[:, 0] = searches
        sums[:, 1] = rng.binomial(searches, np.where(shown, changed, 0.3))
        sums[:, 3] = rng.binomial(searches, np.where(shown, strict, 0.4))
        number = self.rollout.number
        cells = {Cell(number, step, impacted=False, bucket=place): row for place, row in enumerate(sums)}
        self.counts.take({}, cells, self.wall)


@pytest.fixture
def site(database: Database) -> Site:
    return Site(database)


def test_a_good_checkpoint_reaches_everybody_step_by_step(site: Site) -> None:
    site.start()
    site.members.beat("replica", A, site.wall)
    assert site.controller.decide() is None  # there is no hurry
    site.passes(6.0)
    site.members.beat("replica", A, site.wall)
    begun = site.controller.decide()
    site.passes(61.0)
    site.search(changed=0.24)
    promoted = site.controller.decide()
    assert begun is not None
    assert promoted is not None
    assert [(one.order, one.step, one.who) for one in (begun, promoted)] == [
        ("begin", 0, "controller"),
        ("promote", 1, "controller"),
    ]
    site.passes(30.0)
    site.search(step=1, changed=0.24)
    assert site.controller.decide() is None  # min_s is not over
    site.passes(31.0)
    site.search(step=1, changed=0.24)
    made = site.controller.decide()
    assert made is not None
    assert (made.state, made.why) == ("promoted", "step 2 of 3 is done")
    assert site.store.deployment().promoted == site.rollout
    assert site.controller.decide() is None


def test_it_does_not_begin_before_every_replica_has_it(site: Site) -> None:
    site.start()
    site.passes(6.0)
    assert site.controller.decide() is None  # nobody is there
    site.members.beat("one", A, site.wall)
    site.members.beat("two", None, site.wall)
    assert site.controller.decide() is None
    site.passes(11.0)
    site.members.beat("one", A, site.wall)  # and two is gone
    made = site.controller.decide()
    assert made is not None
    assert (made.order, made.why) == ("begin", "1 replicas have loaded it")


def test_what_cannot_be_loaded_goes_back_in_the_end(site: Site) -> None:
    site.start()
    site.controller.decide()
    site.passes(1001.0)
    made = site.controller.decide()
    assert made is not None
    assert made.state == "rolled_back"


@pytest.mark.parametrize("paused", [False, True])
def test_harm_goes_back_at_once_also_from_a_pause(site: Site, paused: bool) -> None:  # noqa: FBT001
    site.running()
    if paused:
        site.order("pause")
    site.search(strict=0.3)
    made = site.controller.decide()
    assert made is not None
    assert (made.state, made.why) == ("rolled_back", "harm is shown: strict")


def test_a_pause_promotes_nothing(site: Site) -> None:
    site.running()
    site.order("pause")
    site.passes(61.0)
    site.search()
    assert site.controller.decide() is None
    site.order("resume")
    made = site.controller.decide()
    assert made is not None
    assert (made.order, made.step) == ("promote", 1)


def test_stale_data_promotes_nothing(site: Site) -> None:
    site.running()
    site.search()
    site.passes(61.0)
    assert site.controller.decide() is None
    assert "stale data" in site.controller.verdict(site.rollout).why


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_clock_that_is_moved_promotes_nothing(site: Site, jump_s: float) -> None:
    """Neither is time over that has not passed, nor are data fresh that are of another time."""
    site.running()
    site.passes(1.0)
    site.search()
    site.wall += timedelta(seconds=jump_s)
    assert site.controller.decide() is None
    site.search()
    assert site.controller.decide() is None
    assert site.rollout.last.state == "running"
    site.passes(60.0)
    site.search()
    made = site.controller.decide()
    assert made is not None
    assert made.order == "promote"


def test_one_of_many_decides(site: Site) -> None:
    site.running()
    site.passes(61.0)
    site.search()
    assert site.controller.decide() is not None
    site.search(step=1, strict=0.2)
    other = site.another("two")
    assert other.decide() is None
    site.passes(31.0)  # the first one has died, and its lease ends
    made = other.decide()
    assert made is not None
    assert made.state == "rolled_back"


def test_whoever_is_faster_wins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann rolls back while the controller thinks about the next step."""
    site.running()
    site.passes(61.0)
    site.search()
    slow = site.controller.verdict

    def thinks(rollout: Rollout) -> object:
        site.order("rollback")
        return slow(rollout)

    monkeypatch.setattr(site.controller, "verdict", thinks)
    assert site.controller.decide() is None
    assert site.rollout.last.state == "rolled_back"


def test_without_a_rollout_there_is_nothing_to_decide(site: Site) -> None:
    assert site.controller.decide() is None
    site.running()
    site.order("rollback")
    assert site.controller.decide() is None


def test_ids_of_events_are_forgotten_when_nobody_sends_them_again(site: Site) -> None:
    cell = Cell(0, 0, impacted=False, bucket=1)
    event = {"e-1": (cell, np.eye(len(MEASURES))[1])}
    assert site.counts.take(event, {}, site.wall) == 0
    site.passes(6 * 86_400)
    site.controller.decide()
    assert site.counts.take(event, {}, site.wall) == 1
    site.passes(2 * 86_400)
    site.controller.decide()
    assert site.counts.take(event, {}, site.wall) == 0


def test_of_many_ids_some_are_forgotten_with_each_decision(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.rollout.controller.FORGET_MOST", 2)
    cell = Cell(0, 0, impacted=False, bucket=1)
    events = {f"e-{number}": (cell, np.eye(len(MEASURES))[1]) for number in range(5)}
    site.counts.take(events, {}, site.wall)
    site.passes(8 * 86_400)
    left = []
    for _ in range(4):
        site.controller.decide()
        with database.begin() as connection:
            left.append(connection.exec_driver_sql("SELECT count(*) FROM events").scalar())
    assert left == [3, 1, 0, 0]


def test_what_cannot_be_forgotten_or_told_holds_up_no_way_back(
    site: Site, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    site.running()
    site.order("finish")
    site.store.start("winter", A, PLAN, who="ann", why="PASS", at=site.wall)
    site.order("begin")
    site.search(strict=0.1)
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE events")
    seen: list[str] = []

    def tell(_promoted: Rollout) -> None:
        seen.append(site.rollout.last.state)
        raise RegistryError("the bucket is away")

    controller = site.another("two", on_promoted=tell)
    site.passes(31.0)  # the first one's lease is over
    made = controller.decide()
    assert made is not None
    assert made.state == "rolled_back"
    assert seen == ["rolled_back"]
    assert "events not forgotten" in caplog.text
    assert "aliases not moved" in caplog.text


def test_what_it_saw_is_kept_as_it_grew_and_by_two_controllers_once(site: Site) -> None:
    number = site.running().number
    site.controller.decide()
    assert site.looks.of(number) == []  # nobody has searched yet
    for _ in range(3):
        site.passes(1.0)
        site.search(changed=0.24)
        site.controller.decide()
        site.another("two").decide()
        site.controller.decide()
    first, _, last = site.looks.of(number)
    assert (first.step, first.action, last.searches) == (0, "insufficient", 3 * first.searches)
    assert first.why.endswith("s to go in this step")
    widths = [look.findings[0]["high"] - look.findings[0]["low"] for look in (first, last)]
    assert widths[1] < widths[0]
    assert [one["metric"] for one in last.findings] == ["changed", "strict"]


def test_a_look_that_adds_hardly_anything_is_not_kept(site: Site) -> None:
    rollout = site.running()
    verdict = site.controller.verdict(rollout)
    for searches in (0.0, 100.0, 101.9, 102.1, 102.2):
        site.looks.keep(rollout.number, 0, searches, verdict, site.wall)
    site.looks.keep(rollout.number, 1, 102.2, verdict, site.wall)  # another step
    assert [(look.step, look.searches) for look in site.looks.of(rollout.number)] == [
        (0, 100.0),
        (0, 102.1),
        (1, 102.2),
    ]


def test_a_look_that_cannot_be_kept_holds_up_no_decision(
    site: Site, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    site.running()
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE looks")
    site.passes(61.0)
    site.search(strict=0.1)
    made = site.controller.decide()
    assert made is not None
    assert made.state == "rolled_back"
    assert "look not kept" in caplog.text
