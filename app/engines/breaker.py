"""A circuit breaker: stop asking what keeps failing, then ask again with one probe at a time. Pure.

    closed     every request goes through; `max_failures` failures in a row open it
    open       no request goes through for `open_s` seconds
    half-open  one request goes through, the probe; it closes or opens the breaker again

A request that goes through is given a pass, and hands it back with what became of it. Passes from before the
breaker last changed count no more: a request that was slow to fail must neither be taken for the probe nor
prolong the pause.

After Nygard, Release It! (2007). Times are seconds of the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType

BreakerState = Literal["closed", "open", "half_open"]
Pass = NewType("Pass", int)


@dataclass(slots=True)
class Breaker:
    """Counts what its owner tells it. Each pass is handed back once, by one of the last three.

    Args:
        max_failures: failures in a row that open it.
        open_s: seconds before a probe.
    """

    max_failures: int
    open_s: float
    _failures: int = 0
    _opened_s: float | None = None
    _probing: bool = False
    _changes: int = 0

    @property
    def state(self) -> BreakerState:
        """Where it stands."""
        if self._opened_s is None:
            return "closed"
        return "half_open" if self._probing else "open"

    def admit(self, now_s: float) -> Pass | None:
        """A pass, where a request may go through now; open for long enough, the first to ask is the probe."""
        if self._opened_s is not None:
            if self._probing or now_s < self._opened_s + self.open_s:
                return None
            self._probing = True
        return Pass(self._changes)

    def reset(self) -> None:
        """What failed was replaced: closed, and nothing counted."""
        self._failures, self._opened_s, self._probing = 0, None, False
        self._changes += 1

    def succeeded(self, given: Pass) -> None:
        """A request was answered."""
        if given != self._changes:
            return
        self._failures = 0
        if self._opened_s is not None:
            self.reset()

    def failed(self, given: Pass, now_s: float) -> None:
        """A request failed for reasons of what was asked."""
        if given != self._changes:
            return
        self._failures += 1
        if self._opened_s is not None or self._failures >= self.max_failures:
            self._opened_s, self._probing = now_s, False
            self._changes += 1

    def gave_up(self, given: Pass) -> None:
        """A request was taken back by its caller, or refused for its own fault: it says nothing."""
        if given == self._changes:
            self._probing = False
