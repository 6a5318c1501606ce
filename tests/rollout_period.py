"""Steps of rollouts with made-up clients, whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.rollout.assignment import BUCKETS, Split
from app.rollout.evidence import CANARY, Period, members
from app.rollout.statistics import Floats

RATES = {"changed": 0.3, "clicks": 0.5, "strict": 0.4, "fallback": 0.05}


def period(
    ratio: float = 0.1,
    *,
    canary: Mapping[str, float] | None = None,
    searches: float = 60.0,
    lost: float = 0.0,
    holdout: float = 0.0,
    before: float = 0.0,
    seed: int = 1,
) -> Period:
    """A step in which every bucket has about so many searches; the canary's rates are changed by factors.

    `lost` is the share of the canary's searches that nobody has counted; with `before`, buckets differ, and
    have searched so often before.
    """
    split = Split("search", holdout_ratio=holdout, rollout_salt="r1", canary_ratio=ratio)
    rng, shown = np.random.default_rng(seed), members(split)[CANARY]
    past = np.random.default_rng(1000 + seed)
    like = past.uniform(0.4, 1.6, BUCKETS) if before else np.ones(BUCKETS)
    sums: dict[str, Floats] = {}
    for traffic, of in (("impacted", 0.3), ("other", 0.7)):
        n = rng.poisson(searches * of * np.where(shown, 1 - lost, 1.0), BUCKETS)
        factors = [np.where(shown, (canary or {}).get(name, 1.0), 1.0) for name in RATES]
        sums[traffic] = _counted(rng, n, like, factors)
    kinds = {"all": sums["impacted"] + sums["other"], "impacted": sums["impacted"]}
    seen = past.poisson(before, BUCKETS)
    return Period(split, kinds, _counted(past, seen, like, [1.0] * len(RATES)) if before else None)  # type: ignore[arg-type]


def _counted(rng: np.random.Generator, n: Any, like: Floats, factors: Sequence[Any]) -> Floats:
    """Sums of buckets that have searched n times, as `MEASURES` has them."""
    rates = [rate * factor * like for rate, factor in zip(RATES.values(), factors, strict=True)]
    columns = [n, *(rng.binomial(n, np.clip(rate, 0.0, 1.0)) for rate in rates), 0.1 * n]
    return np.stack(columns, axis=1).astype(float)
