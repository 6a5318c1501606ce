"""Which of an instance's rewrites become pairs: the best against the worst. Pure.

Of the distinct rewrites, ordered by reward, the i-th best is set against the i-th worst, for i up to k. A
pair whose rewards are closer than `tie` says nothing and is left out, and so is one whose winner the floor
holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rated:
    """A rewrite of one instance and what it is worth. `floored`: it must never win."""

    text: str
    reward: float
    floored: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Places of two rewrites in the list they came in, and how much better the chosen one is."""

    chosen: int
    rejected: int
    margin: float


def pairs_of(rated: Sequence[Rated], *, k: int, tie: float) -> list[Pair]:
    """Return at most k pairs, the clearest first. Of rewrites of one text the first stands for all.

    Args:
        rated: the rewrites of one instance.
        k: how many of the best, and of the worst; no rewrite is in two pairs.
        tie: rewards this close are equal.

    Raises:
        ValueError: k < 1 or tie < 0.
    """
    if k < 1 or tie < 0:
        raise ValueError(f"k must be >= 1 and tie >= 0, not {k} and {tie}")
    first: dict[str, int] = {}
    for place, rewrite in enumerate(rated):
        first.setdefault(rewrite.text, place)
    # Equal rewards keep their order: what is drawn again is paired again.
    order = sorted(first.values(), key=lambda place: -rated[place].reward)
    count = min(k, len(order) // 2)
    found = [
        Pair(best, worst, rated[best].reward - rated[worst].reward)
        for best, worst in zip(order[:count], order[: -count - 1 : -1], strict=True)
    ]
    return [pair for pair in found if pair.margin > tie and not rated[pair.chosen].floored]
