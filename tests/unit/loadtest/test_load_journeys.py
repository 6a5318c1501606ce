from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.client import Reply
from loadtest.journeys import Journeys
from loadtest.records import ALTERED, CUT, EVENTS, REWRITE, SHED, SIGNALS
from loadtest.trace import Search

DIGEST = "a" * 64


def search(number: int = 0, actions: tuple[str, ...] = ("click",)) -> Search:
    asked = {"query": "rn", "query_id": f"r-{number}", "client_id": "c"}
    return Search(f"r-{number}", "rn", asked, {**asked, "candidates": []}, actions, (0.0, 0.0))


def answer(**changes: Any) -> dict[str, Any]:
    head = {
        "original": "rn",
        "rewrites": [{"text": "registered nurse"}],
        "arm": "stable",
        "checkpoint": {"id": "default", "weights_digest": DIGEST},
        "exposure": "token",
        "reason": None,
        "cache": "hit",
        "stages": ["recall"],
    }
    return head | changes


SIGNALS_ANSWER = answer(stages={"recall": {"reason": None}, "rawrank": {"reason": None}})


@dataclass
class FakeClient:
    """Answers each path by what it was told to, the last answer again and again."""

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def post(self, path: str, body: dict[str, Any]) -> Reply:
        self.asked.append((path, body))
        await asyncio.sleep(self.delay_s)
        default = {
            "/v1/rewrite": Reply(200, answer()),
            "/v1/signals": Reply(200, SIGNALS_ANSWER),
            "/v1/events": Reply(200, {"accepted": len(body.get("events", ()))}),
        }
        told = self.replies.get(path, [default[path]])
        return told.pop(0) if len(told) > 1 else told[0]


def run(client: FakeClient, *people: Search, schedule: list[float] | None = None, **options: Any) -> Journeys:
    driven = Journeys(client, **options)
    asyncio.run(driven.run(schedule or [0.0] * len(people), people))
    return driven


def test_a_journey_goes_from_rewrite_to_events() -> None:
    client = FakeClient()
    driven = run(client, search())
    paths, bodies = zip(*client.asked, strict=True)
    assert paths == ("/v1/rewrite", "/v1/signals", "/v1/events")
    assert {body.get("query_id") for body in bodies[:2]} == {"r-0"}
    (event,) = bodies[2]["events"]
    assert event == {"event_id": "r-0-click", "query_id": "r-0", "action_name": "click", "exposure": "token"}
    assert driven.acknowledged == {"r-0-click"}
    rows = driven.records.rows
    assert list(rows["kind"]) == [REWRITE, SIGNALS, EVENTS]
    assert list(rows["status"]) == [200] * 3
    assert (rows["done"] >= rows["sent"]).all()
    assert driven.records.words["checkpoint"] == ["", DIGEST]


def test_who_does_nothing_reports_nothing() -> None:
    client = FakeClient()
    assert run(client, search(actions=())).acknowledged == set()
    assert len(client.asked) == 2


def test_without_an_answer_the_journey_is_over() -> None:
    client = FakeClient({"/v1/rewrite": [Reply(429, {}, shed=True)]})
    driven = run(client, search())
    assert len(client.asked) == 1
    assert list(driven.records.rows["flags"]) == [SHED]


def test_arrivals_wait_for_nobody() -> None:
    """Ten people, one every 10 ms, whose answers take 0.2 s: all are sent before the first has its own."""
    client = FakeClient(delay_s=0.2)
    driven = run(client, *(search(n, ()) for n in range(10)), schedule=[n / 100 for n in range(10)])
    rows = driven.records.rows
    firsts = rows[rows["kind"] == REWRITE]
    assert firsts["sent"].max() < firsts["done"].min()
    assert firsts["intended"] == pytest.approx([n / 100 for n in range(10)])


def test_events_are_sent_again_until_they_are_taken() -> None:
    refused = Reply(503, {"detail": "the store is out of reach"})
    client = FakeClient({"/v1/events": [refused, Reply(0, {}), Reply(200, {"accepted": 1})]})
    driven = run(client, search(), again_s=0.0)
    assert driven.acknowledged == {"r-0-click"}
    assert driven.unacknowledged == 0
    assert [path for path, _ in client.asked].count("/v1/events") == 3


def test_events_that_nobody_takes_are_given_up_and_counted() -> None:
    client = FakeClient({"/v1/events": [Reply(503, {})]}, delay_s=0.01)
    driven = run(client, search(actions=("click", "strict_click")), again_s=0.0, patience_s=0.01)
    assert (driven.acknowledged, driven.unacknowledged) == (set(), 2)


def test_an_event_of_an_unknown_search_is_not_acknowledged() -> None:
    driven = run(FakeClient({"/v1/events": [Reply(200, {"accepted": 0, "unknown": 1})]}), search())
    assert (driven.acknowledged, driven.unacknowledged) == (set(), 1)


def test_what_is_wrong_with_an_answer_is_kept() -> None:
    cut = answer(stages={"recall": {"reason": None}, "finerank": {"reason": "deadline"}})
    client = FakeClient(
        {"/v1/rewrite": [Reply(200, answer(original="r n"))], "/v1/signals": [Reply(200, cut)]}
    )
    driven = run(client, search(actions=()))
    assert list(driven.records.rows["flags"]) == [ALTERED, CUT]


def test_answers_are_remembered_by_arm_where_they_are_judged() -> None:
    driven = run(FakeClient(), search(actions=()), remember=True)
    first, second = driven.history["stable"]
    assert (first.query, first.said, first.weights_digest) == ("rn", ("registered nurse",), DIGEST)
    assert first.end_s <= second.start_s
    assert run(FakeClient(), search(actions=())).history == {}
