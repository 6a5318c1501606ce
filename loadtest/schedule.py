"""When requests come: pieces of constant or rising rate, and Poisson arrivals by them. Pure.

Times are seconds from the start; rates are per second, in whatever unit the pieces are multiplied by.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """So many seconds in which the rate goes evenly from `start` to `end`."""

    seconds: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if self.seconds <= 0 or min(self.start, self.end) < 0:
            raise ValueError(f"a piece takes time and has no negative rate: {self}")

    @property
    def arrivals(self) -> float:
        """How many are expected in it."""
        return (self.start + self.end) / 2 * self.seconds

    def when(self, arrivals: float) -> float:
        """Return the moment in it at which so many have been expected."""
        slope = (self.end - self.start) / self.seconds
        if abs(slope) < 1e-12:  # noqa: PLR2004 -- what floats leave of 0
            return arrivals / self.start
        return (math.sqrt(max(self.start**2 + 2 * slope * arrivals, 0.0)) - self.start) / slope


def arrivals(pieces: Sequence[Piece], *, seed: int) -> list[float]:
    """Return the times of a Poisson process whose rate is that of the pieces, ascending.

    By inversion: a process of rate 1, its time bent by the expected arrivals so far (Çinlar, 1975).
    """
    draw, times = random.Random(seed), list[float]()
    began = passed = 0.0
    expected = draw.expovariate(1.0)
    for piece in pieces:
        while expected < passed + piece.arrivals:
            times.append(began + min(piece.when(expected - passed), piece.seconds))
            expected += draw.expovariate(1.0)
        began, passed = began + piece.seconds, passed + piece.arrivals
    return times


def rate_at(pieces: Sequence[Piece], at_s: float) -> float:
    """Return the intended rate at a moment; 0 after the end."""
    began = 0.0
    for piece in pieces:
        if at_s < began + piece.seconds:
            return piece.start + (piece.end - piece.start) * (at_s - began) / piece.seconds
        began += piece.seconds
    return 0.0
