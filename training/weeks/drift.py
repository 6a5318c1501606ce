"""What people search for changes: occupations come up, are asked for more and more often, and fade. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from training.needs import Need

Wanted = frozenset[str]


@dataclass(frozen=True, slots=True)
class Life:
    """The weeks in which something is searched for, the first and the one after the last."""

    first: int
    end: int

    def popularity(self, week: int) -> float:
        """Return how much of it is searched for in a week, in [0, 1]: a triangle over its life."""
        if not self.first <= week < self.end:
            return 0.0
        length = self.end - self.first
        return min(week - self.first + 1, self.end - week) / ((length + 1) // 2)


def lives(wanted: Sequence[Wanted], *, weeks: int, length: int, seed: int) -> dict[Wanted, Life]:
    """Give each of the wanted sets of documents a life.

    Beginnings are spread evenly from `length` - 1 weeks before the first week to the last one, so that as
    many come up as fade in every week.

    Raises:
        ValueError: a life or the weeks are shorter than 1.
    """
    if min(weeks, length) < 1:
        raise ValueError(f"weeks and length must be >= 1, not {weeks} and {length}")
    rng, distinct = Random(seed), sorted(set(wanted), key=sorted)
    return {one: Life(first := rng.randrange(1 - length, weeks), first + length) for one in distinct}


def of_week(
    needs: Sequence[Need], known: Mapping[Wanted, Life], *, week: int, count: int, seed: int
) -> list[Need]:
    """Draw at most `count` needs of a week without replacement, each wanted set by its popularity.

    What is wanted counts, not how many titles it has; within it every title is as likely as another.
    """
    titles: defaultdict[Wanted, list[Need]] = defaultdict(list)
    for need in needs:
        titles[need.relevant].append(need)
    weight = [known[need.relevant].popularity(week) / len(titles[need.relevant]) for need in needs]
    possible = sum(one > 0 for one in weight)
    rng = np.random.default_rng((seed, week))
    share = np.array(weight) / (sum(weight) or 1.0)
    drawn = rng.choice(len(needs), size=min(count, possible), replace=False, p=share if possible else None)
    return [needs[place] for place in sorted(drawn)]
