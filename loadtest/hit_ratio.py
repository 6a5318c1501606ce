"""How often a cache has what is asked: Che's approximation for LRU, and the law of popularity beneath. Pure.

An entry that was not asked for during T is gone, where T, the same for all, is the time in which as many
distinct entries are asked for as fit: the sum over i of 1 - exp(-p_i T) is `entries`. Then i is there with
that probability. (Che, Tung, Wang, "Hierarchical Web Caching Systems", IEEE JSAC 20(7), 2002; why it is so
exact: Fricker, Robert, Roberts, "A Versatile and Accurate Approximation for LRU Cache Performance", ITC 24,
2012.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HALVINGS = 200


def zipf_shares(count: int, exponent: float) -> Floats:
    """[count] shares of requests, most popular first; they add up to 1."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum(), np.float64)


def lru_hit_ratio(shares: Floats, entries: int) -> float:
    """Return the hit ratio of an LRU cache that has long been in use.

    Args:
        shares: of requests by entry; they add up to 1.
        entries: that fit. As many as there are, or more: 1, for what is asked once stays.
    """
    if entries >= len(shares):
        return 1.0
    if entries <= 0:
        return 0.0
    low, high = 0.0, float(entries)
    while _expected(shares, high) < entries:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected(shares, middle) < entries else (low, middle)
    return float((shares * -np.expm1(-shares * high)).sum())


def simulated_hit_ratio(trace: Iterable[int], entries: int, *, warm: int) -> float:
    """Return the hit ratio of a real LRU cache over a trace, after its first `warm` requests."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = asked = 0
    for number, wanted in enumerate(trace):
        hit = wanted in cache
        cache[wanted] = None
        cache.move_to_end(wanted)
        if len(cache) > entries:
            cache.popitem(last=False)
        if number >= warm:
            hits, asked = hits + hit, asked + 1
    return hits / asked if asked else 0.0


def _expected(shares: Floats, time: float) -> float:
    return float(-np.expm1(-shares * time).sum())
