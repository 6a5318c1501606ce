"""Simulated people before a service: what they want is what labels say, and what they do follows from it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.canary.pages import Pages
from training.canary.people import CHANGES, People, Search, job_searches
from training.needs import Need
from training.search import Plan
from training.users import User

NEEDS = [Need("icu rn", frozenset({"nurse"})), Need("mig", frozenset({"welder"}))]
CERTAIN = User(eta=0.0, attraction=(0.0, 1.0), satisfaction=(0.0, 1.0))
FOOLED = User(eta=0.0, attraction=(1.0, 1.0), satisfaction=(1.0, 1.0))


def outcomes(user: User, shown: Sequence[str]) -> Counter[tuple[str, ...]]:
    people = People(NEEDS, clients=5, user=user, seed=1)
    search = Search("q-1", "client-1", NEEDS[0])
    return Counter(tuple(people.outcome(search, shown).actions()) for _ in range(1000))


def test_who_finds_it_clicks_and_stays() -> None:
    assert outcomes(CERTAIN, ["clerk", "nurse"]) == {("click", "strict_click"): 1000}


def test_who_does_not_mostly_changes_the_query() -> None:
    found = outcomes(CERTAIN, ["clerk", "welder"])
    assert set(found) == {(), ("change_query",)}
    assert abs(found["change_query",] / 1000 - CHANGES) < 0.05


def test_who_stays_with_something_else_has_not_found_it() -> None:
    """The page sees a strict click; the user knows better."""
    found = outcomes(FOOLED, ["clerk", "nurse"])
    assert set(found) == {("click", "strict_click"), ("click", "strict_click", "change_query")}


def test_searches_have_numbers_of_their_own_and_clients_come_again() -> None:
    people = People(NEEDS, clients=10, user=CERTAIN, seed=1)
    searches = [*people.searches(300), *people.searches(300)]
    assert len({search.query_id for search in searches}) == 600
    clients = Counter(search.client_id for search in searches)
    assert len(clients) == 10
    assert max(clients.values()) > 2 * min(clients.values())
    again = People(NEEDS, clients=10, user=CERTAIN, seed=1)
    assert list(again.searches(300)) == searches[:300]


def test_they_search_for_what_nothing_was_trained_on(shared_data: Path) -> None:
    needs = job_searches(shared_data / "jobs")
    assert len(needs) == 166 + 779 + 750
    assert all(need.relevant for need in needs)


class Ranker:
    """A stack that tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Plan] = []

    async def search(self, plans: Sequence[Plan]) -> list[list[str]]:
        self.asked += plans
        await asyncio.sleep(0)
        return [["clerk", "nurse", *map(str, range(20))] for _ in plans]


def rewritten(*texts: str, stages: Sequence[str] = ("finerank",)) -> dict[str, object]:
    return {"rewrites": [{"text": text, "confidence": 0.5} for text in texts], "stages": list(stages)}


def test_a_page_is_ranked_once(tmp_path: Path) -> None:
    ranker, file = Ranker(), tmp_path / "pages.jsonl"
    pages = Pages(ranker, file)  # type: ignore[arg-type]
    need = NEEDS[0]

    async def look() -> None:
        nurse = rewritten("nurse")
        one, two = await asyncio.gather(pages.of(need, nurse), pages.of(need, nurse))
        assert one is two
        assert one.shown[:2] == ("clerk", "nurse")
        assert len(one.shown) == 10
        assert round(one.ndcg, 4) == 0.6309
        await pages.of(need, rewritten("nurse", stages=["recall", "finerank"]))
        await pages.of(need, rewritten("a nurse"))
        # Without a rewrite the stages do not matter.
        await pages.of(need, rewritten(stages=["finerank"]))
        await pages.of(need, rewritten(stages=[]))

    asyncio.run(look())
    assert [(plan.query, len(plan.rewrites), sorted(plan.stages)) for plan in ranker.asked] == [
        ("icu rn", 1, ["finerank"]),
        ("icu rn", 1, ["finerank", "recall"]),
        ("icu rn", 1, ["finerank"]),
        ("icu rn", 0, []),
    ]
    later = Ranker()
    page = asyncio.run(Pages(later, file).of(need, rewritten("nurse")))  # type: ignore[arg-type]
    assert page.shown[:2] == ("clerk", "nurse")
    assert later.asked == []
