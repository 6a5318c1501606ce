"""Counts and events: added up whoever sends them, once, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import event as sqlalchemy_event

from app.errors import StoreError
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import MEASURES, Cell

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
SEARCH = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.25])
CLICK = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
HERE = Cell(1, 0, impacted=False, bucket=7)
IMPACTED = replace(HERE, impacted=True)
ELSEWHERE = Cell(1, 1, impacted=False, bucket=9999)


@pytest.fixture
def counts(database: Database) -> CountStore:
    return CountStore(database)


def test_what_is_counted_is_added_up(counts: CountStore) -> None:
    for _ in range(3):
        assert counts.take({}, {HERE: SEARCH, IMPACTED: SEARCH, ELSEWHERE: SEARCH}, NOW) == 0
    found = counts.sums(1)
    assert set(found) == {0, 1}
    assert found[0]["all"].shape == (10_000, len(MEASURES))
    assert found[0]["all"][7].tolist() == (6 * SEARCH).tolist()
    assert found[0]["impacted"][7].tolist() == (3 * SEARCH).tolist()
    assert found[1]["all"][9999].tolist() == (3 * SEARCH).tolist()
    assert found[0]["all"].sum() == 7.5
    assert counts.sums(2) == {}
    (asked,) = counts.sums(1, step=1).items()
    assert asked[0] == 1
    assert asked[1]["all"].tolist() == found[1]["all"].tolist()


def test_an_event_counts_once_however_often_it_is_sent(counts: CountStore) -> None:
    assert counts.take({"e1": (HERE, CLICK), "e2": (HERE, CLICK)}, {}, NOW) == 0
    assert counts.take({"e2": (HERE, CLICK), "e3": (HERE, CLICK)}, {HERE: SEARCH}, NOW) == 1
    assert counts.take({"e3": (ELSEWHERE, CLICK)}, {}, NOW) == 1
    assert counts.sums(1)[0]["all"][7].tolist() == (3 * CLICK + SEARCH).tolist()


def test_when_anything_was_last_counted(counts: CountStore) -> None:
    assert counts.counted_at(1) is None
    counts.take({}, {HERE: SEARCH}, NOW)
    counts.take({}, {ELSEWHERE: SEARCH}, NOW + timedelta(seconds=5))
    assert counts.counted_at(1) == NOW + timedelta(seconds=5)
    assert counts.counted_at(2) is None


def test_ids_of_old_events_are_forgotten_and_what_they_counted_is_not(counts: CountStore) -> None:
    counts.take({"old": (HERE, CLICK)}, {}, NOW)
    counts.take({"new": (HERE, CLICK)}, {}, NOW + timedelta(hours=1))
    assert counts.forget_events(NOW + timedelta(minutes=1), most=0) == 0
    assert counts.forget_events(NOW + timedelta(minutes=1), most=9) == 1
    assert counts.take({"new": (HERE, CLICK)}, {}, NOW) == 1
    assert counts.sums(1)[0]["all"][7].tolist() == (2 * CLICK).tolist()


def test_a_batch_counts_whole_or_not_at_all(database: Database, counts: CountStore) -> None:
    """The connection breaks after the events and before the counts; the batch comes again."""
    broken = []

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "INTO counts" in statement and not broken:
            broken.append(statement)
            raise ConnectionResetError("the connection is gone")

    sqlalchemy_event.listen(database.engine, "before_cursor_execute", fail)
    batch = {"e1": (HERE, CLICK)}, {HERE: SEARCH}
    with pytest.raises((StoreError, ConnectionResetError)):
        counts.take(*batch, NOW)
    assert counts.sums(1) == {}
    assert counts.take(*batch, NOW) == 0
    assert counts.sums(1)[0]["all"][7].tolist() == (CLICK + SEARCH).tolist()


_REPLICA = """
import sys
from datetime import UTC, datetime
import numpy as np
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import Cell
url, me = sys.argv[1], int(sys.argv[2])
counts = CountStore(Database(url))
one = np.array([1.0, 0, 0, 0, 0, 0])
for batch in range(20):
    cells = {Cell(1, 0, False, (bucket * (me + 1)) % 50): one for bucket in range(50)}
    events = {f"{batch} {number}": (Cell(1, 0, True, number), one) for number in range(10)}
    counts.take(events, cells, datetime.now(UTC))
"""


def test_many_replicas_count_as_one(url: str, counts: CountStore) -> None:
    """Rows in another order each, and all of them send the same events."""
    replicas = [subprocess.Popen([sys.executable, "-c", _REPLICA, url, str(me)]) for me in range(4)]
    assert [replica.wait(timeout=120) for replica in replicas] == [0] * 4
    sums = counts.sums(1)[0]
    assert sums["impacted"][:, 0].sum() == 20 * 10
    expected = sum(len({(bucket * (me + 1)) % 50 for bucket in range(50)}) for me in range(4))
    assert (sums["all"] - sums["impacted"])[:, 0].sum() == 20 * expected
