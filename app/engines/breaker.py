"""A circuit breaker: stop asking an engine that keeps failing, then ask again with one probe at a time. Pure.

    closed     every request goes through; `max_failures` failures in a row open it
    open       no request goes through for `open_s` seconds
    half-open  one request goes through, the probe; it closes or opens the breaker again

After Nygard, Release It! (2007). Times are seconds of the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(slots=True)
class Breaker:
    """Counts what its owner tells it. Each `allows` that was True is followed by one of the three others.

    Args:
        max_failures: failures in a row that open it.
        open_s: seconds before a probe.
    """

    max_failures: int
    open_s: float
    _failures: int = 0
    _opened_s: float | None = None
    _probing: bool = False

    @property
    def state(self) -> BreakerState:
        """Where it stands."""
        if self._opened_s is None:
            return "closed"
        return "half_open" if self._probing else "open"

    def allows(self, now_s: float) -> bool:
        """Whether a request may go through now; when open for long enough, the first to ask is the probe."""
        if self._opened_s is None:
            return True
        if self._probing or now_s < self._opened_s + self.open_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """A request was answered."""
        self._failures, self._opened_s, self._probing = 0, None, False

    def failed(self, now_s: float) -> None:
        """A request failed for the engine's own reasons."""
        self._failures += 1
        if self._opened_s is not None or self._failures >= self.max_failures:
            self._opened_s, self._probing = now_s, False

    def gave_up(self) -> None:
        """A request was taken back by its caller, or refused for its own fault: it says nothing."""
        self._probing = False
