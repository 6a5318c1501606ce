"""People on the way: rewrite, a thought, signals with the same query_id, a thought, events.

Arrivals are by schedule, whatever becomes of earlier ones. What follows in a journey is intended when the
answer before it came and the person has thought, because nobody acts on a page that is not there. Every
request is charged from the moment intended; how late it was sent is the generator's own doing, and kept too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.client import Client, Reply
from loadtest.history import Request
from loadtest.records import ALTERED, CUT, EVENTS, KINDS, RETRIED, REWRITE, SHED, SIGNALS, Records
from loadtest.trace import Search

OK = 200
BEAT_S = 0.05


@dataclass
class Journeys:
    """Drives people through the service and keeps what became of them.

    Args:
        client: of the replicas.
        remember: keep what every answer said, by arm, for `loadtest.history`.
        again_s: seconds until events that were refused are sent again.
        patience_s: seconds after which they are given up.
        beats: how late, in seconds, this process's own clock struck: it cannot read answers sooner.
        acknowledged: ids of events of which the service said that it has them.
        unacknowledged: events that it would not take within `patience_s`.
    """

    client: Client
    remember: bool = False
    again_s: float = 1.0
    patience_s: float = 30.0
    records: Records = field(default_factory=Records)
    history: dict[str, list[Request]] = field(default_factory=dict)
    beats: list[tuple[float, float]] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    unacknowledged: int = 0
    began: float = 0.0

    def now(self) -> float:
        """Seconds from the start of the load."""
        return time.perf_counter() - self.began

    async def run(self, schedule: Sequence[float], searches: Iterable[Search]) -> None:
        """Send people on their way by the schedule; return when the last one is through."""
        self.began = time.perf_counter()
        beating = asyncio.create_task(self._beat())
        try:
            async with asyncio.TaskGroup() as people:
                for number, (at, search) in enumerate(zip(schedule, searches, strict=False)):
                    await self._wait_until(at)
                    people.create_task(self._journey(number, at, search))
        finally:
            beating.cancel()

    async def _journey(self, number: int, at: float, search: Search) -> None:
        found = await self._ask(number, REWRITE, at, search, search.rewrite)
        if found.status != OK:
            return
        thought = self.now() + search.think_s[0]
        await self._wait_until(thought)
        await self._ask(number, SIGNALS, thought, search, search.signals)
        thought = self.now() + search.think_s[1]
        await self._wait_until(thought)
        if search.actions:
            await self._report(number, thought, search, found.body["exposure"])

    async def _report(self, number: int, at: float, search: Search, exposure: str | None) -> None:
        """Send what was done, again and again until the service has it, as its contract wants."""
        events = [
            {
                "event_id": f"{search.query_id}-{action}",
                "query_id": search.query_id,
                "action_name": action,
                "exposure": exposure or "",
            }
            for action in search.actions
        ]
        give_up = at + self.patience_s
        while True:
            found = await self._ask(number, EVENTS, at, search, {"events": events})
            if found.status == OK and found.body["accepted"] == len(events):
                self.acknowledged.update(event["event_id"] for event in events)
                return
            if found.status == OK or self.now() > give_up:
                self.unacknowledged += len(events)
                return
            at = self.now() + self.again_s
            await self._wait_until(at)

    async def _ask(self, number: int, kind: int, at: float, search: Search, body: dict[str, Any]) -> Reply:
        sent = self.now()
        found = await self.client.post(f"/v1/{KINDS[kind]}", body)
        done, told = self.now(), found.body
        flags = SHED * found.shed | RETRIED * found.retried
        answered = found.status == OK and kind != EVENTS
        if answered:
            flags |= ALTERED * (told["original"] != search.query) | CUT * _is_cut(told.get("stages"))
            if self.remember:
                self._remember(sent, done, search, told)
        self.records.add(
            {
                "intended": at,
                "sent": sent,
                "done": done,
                "journey": number,
                "status": found.status,
                "kind": kind,
                "reason": told.get("reason") if answered else None,
                "cache": told.get("cache") if answered else None,
                "arm": told.get("arm") if answered else None,
                "checkpoint": told["checkpoint"]["weights_digest"] if answered else None,
                "flags": flags,
            }
        )
        return found

    def _remember(self, sent: float, done: float, search: Search, told: dict[str, Any]) -> None:
        said = tuple(rewrite["text"] for rewrite in told["rewrites"])
        digest = told["checkpoint"]["weights_digest"]
        one = Request(sent, done, search.query, OK, told["original"], digest, told["reason"], said)
        self.history.setdefault(told["arm"], []).append(one)

    async def _wait_until(self, at: float) -> None:
        if (wait_s := at - self.now()) > 0:
            await asyncio.sleep(wait_s)

    async def _beat(self) -> None:
        while True:
            due = self.now() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.beats.append((due, self.now() - due))


def _is_cut(stages: object) -> bool:
    """Whether a stage of signals has found no time; a rewrite's answer lists stages and has none cut."""
    if not isinstance(stages, dict):
        return False
    return any(stage["reason"] == "deadline" for stage in stages.values())
