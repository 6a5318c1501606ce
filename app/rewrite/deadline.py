"""The remaining budget of a request. Pure: times in, a deadline out.

The budget is the smallest of the body's `deadline_ms`, the header `x-envoy-expected-rq-timeout-ms` and the
server's default; it starts when the request's head was there, so a slow body spends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["body", "header", "default"]

TIMEOUT_HEADER = "x-envoy-expected-rq-timeout-ms"

# Ten digits of milliseconds are 115 days: whoever sends more did not mean a time.
_MAX_HEADER_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which an answer is due, in seconds of the monotonic clock, and who asked for it."""

    at_s: float
    source: Source

    def remaining_s(self, now_s: float) -> float:
        """Seconds left at `now_s`; never negative."""
        return max(0.0, self.at_s - now_s)


def deadline_of(arrived_s: float, *, body_ms: int | None, header_ms: int | None, default_ms: int) -> Deadline:
    """The earliest of the three wishes, counted from `arrived_s`; ties go to the server, then the header."""
    budget_ms, source = default_ms, "default"
    if header_ms is not None and header_ms < budget_ms:
        budget_ms, source = header_ms, "header"
    if body_ms is not None and body_ms < budget_ms:
        budget_ms, source = body_ms, "body"
    return Deadline(at_s=arrived_s + budget_ms / 1000, source=source)  # type: ignore[arg-type]


def parse_timeout_header(value: str) -> int:
    """Whole milliseconds of Envoy's header, at least 1.

    Raises:
        ValueError: not a plain positive decimal. Envoy sends 0 where it has no timeout; that is no wish
            either, so the caller ignores it like any other malformed value.
    """
    text = value.strip(" \t")
    if not (text.isascii() and text.isdecimal()) or len(text) > _MAX_HEADER_DIGITS or int(text) == 0:
        raise ValueError("not a positive whole number of milliseconds")
    return int(text)
