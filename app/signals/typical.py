"""What a head of the relevance model takes now, so that what cannot finish in time is not begun."""

from __future__ import annotations


class TypicalSeconds:
    """Seconds per item of one kind of work: an exponential mean, 0 before the first.

    Work passed over on an estimate is work that cannot correct it, so each time the estimate shrinks a
    little: a wrong one is tried again.
    """

    WEIGHT = 0.1

    def __init__(self) -> None:
        self._per_item = 0.0

    def fits(self, items: int, remaining_s: float) -> bool:
        """Whether so many items can be had in the time that remains; not in none."""
        if self._per_item * items <= remaining_s:
            return remaining_s > 0
        self._per_item *= 1 - self.WEIGHT
        return False

    def saw(self, seconds: float, items: int) -> None:
        """Take finished work into account."""
        per_item = seconds / items
        self._per_item += (per_item - self._per_item) * (self.WEIGHT if self._per_item else 1.0)

    def saw_cut_off(self, seconds: float, items: int) -> None:
        """Take work into account that would have taken longer than this."""
        if seconds > self._per_item * items:
            self.saw(seconds, items)
