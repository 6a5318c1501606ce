"""A confidence sequence as it grows, drawn: looks in, the coordinates of a picture out. Pure.

To the right go the canary's searches, by their logarithm: an interval narrows by about the same at each
doubling. Upwards goes the gain, whose sign is that of the better: what lies above 0 is good for the canary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460.0, 190.0
LEFT, TOP, RIGHT, BOTTOM = 52.0, 8.0, 10.0, 24.0
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
_TICKS_UP, _TICKS_ACROSS = 5, 6
_SPARE = 0.08
_ABOVE, _BELOW = -INNER_HEIGHT, 2 * INNER_HEIGHT  # out of sight


@dataclass(frozen=True, slots=True)
class Point:
    """What was known of a metric at one look.

    Args:
        searches: of the canary so far, above 0.
        gain: so far; None: nothing is known.
        low: the gain is above it; None: not bounded.
        high: the gain is below it; None: not bounded.
    """

    searches: float
    gain: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A place at an axis, and the number there."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Coordinates. Polygons and lines are in those of the plot inside, everything else in the picture's.

    Args:
        band: polygon between the ends.
        low, high, gain: lines; "" where there is nothing to draw.
        last: (x, y) of the last gain; None: nothing is known of it.
        zero, margin, harm: heights of these; None where they are not asked for.
        steps: x and number of each later step's beginning.
        across, up: ticks.
    """

    band: str
    low: str
    high: str
    gain: str
    last: tuple[float, float] | None
    zero: float
    margin: float | None
    harm: float | None
    steps: Sequence[tuple[float, int]]
    across: Sequence[Tick]
    up: Sequence[Tick]


def chart(
    points: Sequence[Point], starts: Sequence[tuple[int, float]], *, margin: float | None, harm: float | None
) -> Chart | None:
    """Return the picture of one metric; None where there is no look yet.

    Args:
        points: the first look first; searches do not fall.
        starts: (step, searches of the canary at its first look), without the first step.
        margin: down to which a loss is no harm; None: the metric is the goal.
        harm: below which it is harm.
    """
    if not points:
        return None
    across = _Logarithm(points[0].searches, points[-1].searches)
    up = _Linear(*_ends(points, margin, harm))
    low = [(across(one.searches), up.held(one.low, _BELOW)) for one in points]
    high = [(across(one.searches), up.held(one.high, _ABOVE)) for one in points]
    gain = [(across(one.searches), up.held(one.gain, _BELOW)) for one in points if one.gain is not None]
    if len(points) == 1:  # one look is no line: give it some breadth
        low, high = ([(x - 4, y), (x + 4, y)] for (x, y) in (low[0], high[0]))
    return Chart(
        band=_path([*high, *reversed(low)]),
        low=_path(low),
        high=_path(high),
        gain=_path(gain) if len(gain) > 1 else "",
        last=gain[-1] if gain else None,
        zero=TOP + up(0.0),
        margin=None if margin is None else TOP + up(-margin),
        harm=None if harm is None else TOP + up(-harm),
        steps=[(LEFT + across(searches), step) for step, searches in starts],
        across=[Tick(LEFT + across(value), value) for value in across.ticks()],
        up=[Tick(TOP + up(value), value) for value in up.ticks()],
    )


def _ends(points: Sequence[Point], margin: float | None, harm: float | None) -> tuple[float, float]:
    """What is to be seen upwards: all that was known in the later half, and the limits."""
    later = points[len(points) // 2 :]
    values = [0.0, *(-limit for limit in (margin, harm) if limit is not None)]
    values += [value for one in later for value in (one.gain, one.low, one.high) if value is not None]
    low, high = min(values), max(values)
    spare = _SPARE * (high - low) or 0.01
    return low - spare, high + spare


class _Linear:
    """From a value to a height in the plot, which goes down."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, value: float) -> float:
        return INNER_HEIGHT * (self._high - value) / (self._high - self._low)

    def held(self, value: float | None, instead: float) -> float:
        """The height of a value, or what stands for none; far outside it is held near the plot."""
        height = instead if value is None else self(value)
        return max(_ABOVE, min(_BELOW, height))

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        rough = (self._high - self._low) / _TICKS_UP
        unit = 10.0 ** math.floor(math.log10(rough))
        size = next(unit * one for one in (1, 2, 5, 10) if unit * one >= rough)
        first, last = math.ceil(self._low / size), math.floor(self._high / size)
        return [place * size for place in range(first, last + 1)]


class _Logarithm:
    """From searches to a place in the plot."""

    def __init__(self, first: float, last: float) -> None:
        self._low, self._high = math.log10(first), math.log10(last)
        if self._high - self._low < math.log10(2):
            middle = (self._low + self._high) / 2
            self._low, self._high = middle - 0.25, middle + 0.25

    def __call__(self, searches: float) -> float:
        return INNER_WIDTH * (math.log10(searches) - self._low) / (self._high - self._low)

    def ticks(self) -> list[float]:
        """Round numbers of searches: 1, 2, 5 of each power of ten, and fewer where these are many."""
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [digit * 10.0**power for power in powers for digit in digits]
            kept = [one for one in found if self._low <= math.log10(one) <= self._high]
            if len(kept) <= _TICKS_ACROSS:
                return kept
        return kept[:: -(-len(kept) // _TICKS_ACROSS)]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
