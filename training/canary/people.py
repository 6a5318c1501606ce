"""Simulated people in front of a real service: who searches for what, and what they make of what they see.

Satisfaction comes from human labels and from no relevance model: people look from the top, click what they
want more often than what they do not, stop when they have it, and most change their query when they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

from training.datasets.beir import read_task
from training.needs import Need
from training.users import User

SPLITS = ("dev_canonical", "dev_seen", "dev_unseen")
SKEW = 0.5
"""The i-th need is looked for (1 / i) ** SKEW as often: some are popular, and none is most of the traffic."""
CHANGES = 0.7
"""Of those who do not find what they want, so many try another query."""


@dataclass(frozen=True, slots=True)
class Search:
    """Somebody searches for something."""

    query_id: str
    client_id: str
    need: Need


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a search.

    Args:
        clicks: on anything.
        stayed: the last click ended the search.
        changed: another query was tried: what was clicked last, if anything, was not what was wanted.
    """

    clicks: int
    stayed: bool
    changed: bool

    def actions(self) -> list[str]:
        """The events that a search page would send."""
        strict, changed = ["strict_click"] * self.stayed, ["change_query"] * self.changed
        return ["click"] * self.clicks + strict + changed


def job_searches(folder: Path) -> list[Need]:
    """Return all labelled titles of the dev splits: nothing was ever trained on them, and nothing is here.

    Raises:
        DataError: a file is missing or malformed.
    """
    needs = []
    for split in SPLITS:
        task = read_task(folder, split)
        for query in task.queries:
            grades = task.qrels.get(query.query_id, {})
            needs.append(Need(query.text, frozenset(doc_id for doc_id, grade in grades.items() if grade > 0)))
    return [need for need in needs if need.relevant]


class People:
    """Clients who come again and again; some search much more often than others.

    Args:
        needs: what is ever wanted.
        clients: how many there are.
        user: how they click.
        seed: of all chance.
    """

    def __init__(self, needs: Sequence[Need], *, clients: int, user: User, seed: int) -> None:
        self._rng, self._seed = Random(seed), seed
        self._needs = self._rng.sample(needs, len(needs))  # which ones are popular is chance
        self._popularity = list(accumulate((place + 1) ** -SKEW for place in range(len(needs))))
        self._clients, self._user = clients, user
        self._count = 0

    def searches(self, count: int) -> Iterator[Search]:
        """Draw the next searches; no query_id comes twice."""
        for need in self._rng.choices(self._needs, cum_weights=self._popularity, k=count):
            self._count += 1
            client = int(self._clients * self._rng.random() ** 2)
            yield Search(f"q-{self._seed}-{self._count}", f"client-{client}", need)

    def outcome(self, search: Search, shown: Sequence[str]) -> Outcome:
        """Draw what comes of a search that has brought up these doc ids, best first."""
        wanted = [doc_id in search.need.relevant for doc_id in shown]
        clicks = self._user.clicks(wanted, self._rng)
        stayed = bool(clicks) and clicks[-1].satisfied
        found = stayed and wanted[clicks[-1].place]
        return Outcome(len(clicks), stayed, not found and self._rng.random() < CHANGES)
