"""Simulated searches: what is read back from the log is what people did, and labels are not in it."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

from app.contracts.prompt import Context, Item
from app.relevance.base import Content
from training.datasets.instances import Instance, Search
from training.datasets.ubi import Options, read_instances
from training.evaluate import Rewrite
from training.needs import Need
from training.search import Plan
from training.simulate import events, rankings, write_log
from training.users import User

START = datetime(2026, 1, 1, tzinfo=UTC)
NEEDS = [Need("icu rn", frozenset({"nurse"})), Need("mig", frozenset({"welder"})), Need("x", frozenset())]
SHOWN = [["clerk", "nurse", "welder"], ["welder", "clerk", "nurse"], ["clerk"]]
CATALOGUE = {name: Content(name) for name in ("nurse", "welder", "clerk", "baker")}
CERTAIN = User(eta=0.0, attraction=(0.0, 1.0), satisfaction=(0.0, 1.0))


def read(user: User, folder: Path, name: str = "log.ndjson.gz") -> list[Instance]:
    log = events(NEEDS, SHOWN, user=user, searches=8, start=START, seed=2)
    write_log(log, folder / name)
    return list(read_instances([folder / name], CATALOGUE, options=Options(num_random=1)))


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def test_who_clicks_what_they_want_is_read_so(tmp_path: Path) -> None:
    icu, mig = read(CERTAIN, tmp_path)
    assert (icu.query, mig.query) == ("icu rn", "mig")  # nobody clicked for x
    assert [(seen.content.text, seen.rate) for seen in icu.clicked] == [("nurse", 1.0)]
    assert [(seen.content.text, seen.rate) for seen in icu.skipped] == [("clerk", 1.0)]  # welder: below
    assert [seen.content.text for seen in mig.clicked] == ["welder"]
    assert mig.skipped == ()


def test_of_whom_nothing_is_known_no_click_is_made_up(tmp_path: Path) -> None:
    """`x` is searched for all the same, and read as a search without a click."""
    eager = User(eta=0.0, attraction=(1.0, 1.0), satisfaction=(1.0, 1.0))
    write_log(events(NEEDS, SHOWN, user=eager, searches=2, start=START, seed=2), tmp_path / "log")
    found = read_instances([tmp_path / "log"], CATALOGUE)
    assert [one.query for one in found] == ["icu rn", "mig"]
    assert found.unclicked == [Search("x")]


def test_who_comes_back_at_once_has_not_found_it(tmp_path: Path) -> None:
    hasty = User(eta=0.0, attraction=(1.0, 1.0), satisfaction=(0.0, 1.0))
    icu, _ = read(hasty, tmp_path)
    assert [seen.content.text for seen in icu.clicked] == ["nurse"]
    assert icu.skipped == ()  # the clerk was clicked, if in vain


def test_the_log_is_a_function_of_the_seed_and_of_time_alone(tmp_path: Path) -> None:
    read(User(), tmp_path, "one.gz")
    read(User(), tmp_path, "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    lines = [json.loads(line) for line in unpacked(tmp_path / "one.gz").splitlines()]
    assert len({line["query_id"] for line in lines}) == 8 * len(NEEDS)
    starts = [line["timestamp"] for line in lines if "action_name" not in line]
    assert starts == sorted(starts)


def test_no_label_is_in_the_log(tmp_path: Path) -> None:
    never = User(attraction=(0.0, 0.0))
    assert read(never, tmp_path) == []
    blind = [Need(need.query, frozenset()) for need in NEEDS]
    log = events(blind, SHOWN, user=never, searches=8, start=START, seed=2)
    write_log(log, tmp_path / "blind.ndjson")
    assert unpacked(tmp_path / "log.ndjson.gz") == (tmp_path / "blind.ndjson").read_text()


def test_a_follow_up_is_shown_what_its_own_rewrites_bring_and_is_logged_with_its_context(
    tmp_path: Path,
) -> None:
    """Two people type the same after looking at different items."""
    needs = [
        Need("in blue", frozenset({name}), Context(last_item=Item(name, "Men")))
        for name in ("nurse", "welder")
    ]

    class Echo:
        async def search(self, plans: list[Plan]) -> list[list[str]]:
            return [[one.text for one in plan.rewrites] for plan in plans]

    rewrites = [[Rewrite(next(iter(need.relevant)), 0.9), Rewrite("clerk", 0.5)] for need in needs]
    shown = asyncio.run(rankings(Echo(), needs, rewrites))
    assert shown == [["nurse", "clerk"], ["welder", "clerk"]]
    write_log(events(needs, shown, user=CERTAIN, searches=3, start=START, seed=1), tmp_path / "log")
    found = list(read_instances([tmp_path / "log"], CATALOGUE))
    assert [(one.query, one.context) for one in found] == [(need.query, need.context) for need in needs]
    assert [[seen.content.text for seen in one.clicked] for one in found] == [["nurse"], ["welder"]]
