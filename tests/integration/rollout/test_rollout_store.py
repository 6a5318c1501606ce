"""Rollouts, the kill switch, replicas and leases, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from app.errors import RolloutError, StoreError
from app.rollout.database import Database
from app.rollout.members import Members
from app.rollout.plan import Plan, read_plan
from app.rollout.schema import revision, upgrade
from app.rollout.state import Order, Rollout, after
from app.rollout.store import RolloutStore
from app.rollout.tables import METADATA

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
PLAN: Plan = read_plan(
    "[[steps]]\nratio = 0.01\n[[steps]]\nratio = 0.25\n[[steps]]\nratio = 1.0\n"
    '[[guardrails]]\nmetric = "strict"\nbetter = "higher"\nmargin = 0.02\n'
)


@pytest.fixture
def store(database: Database) -> RolloutStore:
    return RolloutStore(database)


def started(store: RolloutStore, name: str = "autumn", checkpoint: str = A) -> Rollout:
    return store.start(name, checkpoint, PLAN, who="ann", why="the gate says PASS", at=NOW)


def moved(store: RolloutStore, *orders: Order) -> Rollout:
    """The latest rollout after some orders, a minute between each."""
    for order in orders:
        rollout = store.deployment().latest
        assert rollout is not None
        at = rollout.last.at + timedelta(minutes=1)
        store.move(rollout, after(rollout, order, who="bo", why=f"to {order}", at=at))
    rollout = store.deployment().latest
    assert rollout is not None
    return rollout


def test_an_empty_store_has_nothing_to_follow(store: RolloutStore) -> None:
    found = store.deployment()
    assert (found.latest, found.promoted, found.switch, found.killed) == (None, None, None, False)
    assert store.rollouts() == []


def test_a_rollout_goes_step_by_step_to_everybody(store: RolloutStore) -> None:
    assert started(store) == store.deployment().latest
    ratios = [moved(store, *orders).canary_ratio for orders in ((), ("begin",), ("promote",))]
    assert ratios == [0.0, 0.01, 0.25]
    assert store.deployment().promoted is None
    last = moved(store, "promote")
    assert (last.last.state, last.canary_ratio, last.is_live) == ("promoted", 0.0, False)
    assert store.deployment().promoted == last
    history = store.history(last.number)
    assert [line.number for line in history] == [1, 2, 3, 4]
    assert [line.state for line in history] == ["preparing", "running", "running", "promoted"]
    assert [line.why for line in history] == ["the gate says PASS", "to begin", "to promote", "to promote"]
    assert history[-1].at == NOW + timedelta(minutes=3)


def test_a_pause_keeps_the_share_and_the_time_of_its_step(store: RolloutStore) -> None:
    started(store)
    running = moved(store, "begin")
    paused = moved(store, "pause")
    assert (paused.canary_ratio, paused.entered) == (0.01, running.entered)
    resumed = moved(store, "resume")
    assert (resumed.last.state, resumed.entered) == ("running", running.entered)
    assert moved(store, "promote").entered == resumed.last.at + timedelta(minutes=1)


@pytest.mark.parametrize("orders", [(), ("begin",), ("begin", "pause"), ("begin", "promote")])
def test_from_every_live_state_there_is_a_way_back(store: RolloutStore, orders: tuple[Order, ...]) -> None:
    started(store)
    moved(store, *orders)
    back = moved(store, "rollback")
    assert (back.last.state, back.canary_ratio, back.is_live) == ("rolled_back", 0.0, False)
    assert store.deployment().promoted is None


@pytest.mark.parametrize(
    ("orders", "order"),
    [
        ((), "promote"),
        ((), "pause"),
        (("begin",), "begin"),
        (("begin",), "resume"),
        (("begin", "pause"), "promote"),
        (("begin", "rollback"), "promote"),
        (("begin", "rollback"), "rollback"),
        (("begin", "finish"), "rollback"),
    ],
)
def test_what_a_state_does_not_allow_is_refused(
    store: RolloutStore, orders: tuple[Order, ...], order: Order
) -> None:
    started(store)
    rollout = moved(store, *orders)
    with pytest.raises(RolloutError, match=rf"autumn is {rollout.last.state}: {order} takes one that is"):
        after(rollout, order, who="bo", why="x", at=NOW)


def test_finish_is_everybody_at_once(store: RolloutStore) -> None:
    started(store)
    done = moved(store, "begin", "finish")
    assert (done.last.state, done.last.step) == ("promoted", 2)


def test_one_rollout_at_a_time_and_each_name_once(store: RolloutStore) -> None:
    started(store)
    with pytest.raises(RolloutError, match="autumn is preparing: one rollout at a time"):
        started(store, "winter")
    moved(store, "rollback")
    with pytest.raises(RolloutError, match="autumn is not a new name"):
        started(store)
    second = started(store, "winter", B)
    assert (second.number, second.checkpoint) == (2, B)
    assert [rollout.id for rollout in store.rollouts()] == ["autumn", "winter"]


def test_what_was_promoted_stays_while_the_next_one_runs_and_goes_back(store: RolloutStore) -> None:
    started(store)
    first = moved(store, "begin", "finish")
    started(store, "winter", B)
    moved(store, "begin")
    assert store.deployment().promoted == first
    moved(store, "rollback")
    assert store.deployment().promoted == first


def test_whoever_moves_second_is_told_to_look_again(store: RolloutStore) -> None:
    rollout = started(store)
    one, two = (after(rollout, order, who=order, why="x", at=NOW) for order in ("begin", "rollback"))  # type: ignore[arg-type]
    store.move(rollout, one)
    with pytest.raises(RolloutError, match="autumn has moved meanwhile; look again"):
        store.move(rollout, two)
    assert [line.who for line in store.history(1)] == ["ann", "begin"]


_RACE = """
import sys
from datetime import UTC, datetime
from app.errors import RolloutError
from app.rollout.database import Database
from app.rollout.state import after
from app.rollout.store import RolloutStore
url, me = sys.argv[1:]
store = RolloutStore(Database(url))
rollout = store.deployment().latest
print("ready", flush=True)
sys.stdin.readline()
try:
    store.move(rollout, after(rollout, "begin", who=me, why="race", at=datetime.now(UTC)))
    print("won")
except RolloutError as error:
    print("lost" if "moved meanwhile" in str(error) else error)
"""


def test_of_racing_processes_one_moves_it(url: str, store: RolloutStore) -> None:
    started(store)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, url, f"racer {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert said == ["lost", "lost", "lost", "won"]
    assert len(store.history(1)) == 2


def test_the_kill_switch_has_a_history(store: RolloutStore) -> None:
    store.switch(killed=True, who="ann", why="it burns", at=NOW)
    assert store.deployment().killed
    back = store.switch(killed=False, who="bo", why="it does not", at=NOW)
    found = store.deployment()
    assert found.switch == back
    assert (back.number, found.killed) == (2, False)
    assert [(line.who, line.killed, line.why) for line in store.switches()] == [
        ("ann", True, "it burns"),
        ("bo", False, "it does not"),
    ]


def test_replicas_are_known_by_their_heartbeats(database: Database) -> None:
    members = Members(database)
    members.beat("one", None, NOW)
    members.beat("two", A, NOW - timedelta(seconds=9))
    members.beat("gone", A, NOW - timedelta(seconds=11))
    members.beat("of tomorrow", A, NOW + timedelta(days=1))
    members.beat("one", B, NOW + timedelta(seconds=1))  # while we were asking
    assert members.replicas(NOW) == {"one": B, "two": A}


def test_a_lease_is_held_by_one_until_it_ends(database: Database) -> None:
    members, end = Members(database), NOW + timedelta(seconds=10)
    assert members.hold("controller", "one", at=NOW, until=end)
    assert not members.hold("controller", "two", at=NOW, until=end)
    assert members.hold("controller", "one", at=NOW, until=end)
    assert members.hold("other", "two", at=NOW, until=end)
    assert not members.hold("controller", "two", at=end, until=end + timedelta(seconds=10))
    late = end + timedelta(seconds=1)
    assert members.hold("controller", "two", at=late, until=late + timedelta(seconds=10))
    assert not members.hold("controller", "one", at=late, until=late + timedelta(seconds=10))


def test_a_lease_of_a_clock_that_was_set_back_holds_nobody_up(database: Database) -> None:
    members, tomorrow = Members(database), NOW + timedelta(days=1)
    assert members.hold("controller", "one", at=tomorrow, until=tomorrow + timedelta(seconds=10))
    assert members.hold("controller", "two", at=NOW, until=NOW + timedelta(seconds=10))


def test_the_time_of_day_is_the_databases(database: Database) -> None:
    """Both are of this machine here."""
    before = datetime.now(UTC)
    found = database.now()
    assert before - timedelta(seconds=1) < found < datetime.now(UTC) + timedelta(seconds=1)


def test_migrations_make_the_tables_that_the_code_reads(database: Database) -> None:
    with database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_upgrading_again_changes_nothing(database: Database, store: RolloutStore) -> None:
    started(store)
    upgrade(database)
    assert [rollout.id for rollout in store.rollouts()] == ["autumn"]


def test_processes_that_start_together_upgrade_once(url: str) -> None:
    code = (
        "import sys; from app.rollout.database import Database; from app.rollout.schema import upgrade; "
        "upgrade(Database(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    with closing(Database(url)) as database:
        assert revision(database) is not None


def test_tables_of_a_later_version_are_left_alone(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'r9999'"))
    with pytest.raises(StoreError, match="version r9999, which this one does not know: update corewrite"):
        upgrade(database)


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////no/such/folder/x.db", "postgresql+psycopg://127.0.0.1:1/x"]
)
def test_a_store_that_is_not_there_is_said_to_be_so(url: str) -> None:
    with pytest.raises(StoreError), closing(Database(url)) as database:
        RolloutStore(database).deployment()
