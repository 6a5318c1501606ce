"""Clients who search, simulated bucket by bucket: they differ, they come again, and seasons change. Pure.

What a bucket does is drawn once: how often its clients search, and how likely they are to change their query,
to click, to stay. That is what makes searches of a bucket alike, and a test over searches too sure of itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from app.rollout.assignment import BUCKETS
from app.rollout.evidence import CANARY, MEASURES, Period, members
from app.rollout.statistics import Floats

RATES: Mapping[str, float] = {"changed": 0.3, "clicks": 0.6, "strict": 0.4, "fallback": 0.02}
"""Means over the clients, by search."""
ALIKE = 8.0
"""Concentration of the Beta distributions of the buckets' rates: the less, the more they differ."""
LATENCY_S = (0.08, 0.03)
SEASON = 0.1
SEASON_LOOKS = 50


@dataclass(frozen=True, slots=True)
class Crowd:
    """All clients of a simulated deployment.

    Args:
        rng: of everything they do.
        searches: of all of them, on average, between two looks.
    """

    rng: np.random.Generator
    searches: float
    busy: Floats = field(init=False)
    rates: Mapping[str, Floats] = field(init=False)

    def __post_init__(self) -> None:
        busy = self.rng.gamma(1.0, 1.0, BUCKETS)
        object.__setattr__(self, "busy", busy / busy.sum())
        rates = {
            name: self.rng.beta(mean * ALIKE, (1 - mean) * ALIKE, BUCKETS) for name, mean in RATES.items()
        }
        object.__setattr__(self, "rates", rates)

    def between_looks(
        self, period: Period, look: int, effects: Mapping[str, float], *, times: float = 1.0
    ) -> Floats:
        """Return what happens until the next look, [BUCKETS, MEASURES].

        Args:
            period: how the clients are dealt.
            look: from 0, for the season.
            effects: by metric, what the canary multiplies it by.
            times: as many searches as usual.
        """
        season = 1 + SEASON * math.sin(2 * math.pi * look / SEASON_LOOKS)
        shown = members(period.split)[CANARY]
        searches = self.rng.poisson(times * self.searches * self.busy)
        found = np.zeros((BUCKETS, len(MEASURES)))
        found[:, 0] = searches
        for name, rates in self.rates.items():
            changed = rates * season * np.where(shown, effects.get(name, 1.0), 1.0)
            found[:, MEASURES.index(name)] = self.rng.binomial(searches, np.clip(changed, 0.0, 1.0))
        mean, spread = LATENCY_S
        noise = self.rng.normal(0.0, spread, BUCKETS) * np.sqrt(searches)
        slower = np.where(shown, effects.get("latency_s", 1.0), 1.0)
        found[:, MEASURES.index("latency_s")] = slower * (mean * searches + noise)
        return found
