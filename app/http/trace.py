"""W3C Trace Context, version 00: read the caller's trace, continue it with a span of our own. Pure.

Source: https://www.w3.org/TR/trace-context/ (section 3.2).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = "01"


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace a request belongs to, and the span this service adds to it.

    `parent_id` is the caller's span, None where the trace begins here.
    """

    trace_id: str
    span_id: str
    flags: str
    parent_id: str | None = None

    @property
    def sampled(self) -> bool:
        """Whether its spans are wanted."""
        return self.flags == _SAMPLED

    @property
    def traceparent(self) -> str:
        """The header that names our span as the parent of what follows."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def continue_trace(header: str | None) -> Trace | None:
    """The caller's trace with a new span, or None where the header is absent or malformed.

    A version later than 00 is read as 00, as the standard asks; version ff and all-zero ids are invalid.
    """
    match = _TRACEPARENT.fullmatch(header) if header else None
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or parent_id == _NO_SPAN:
        return None
    return Trace(trace_id, new_span_id(), f"{int(flags, 16) & 1:02x}", parent_id)


def new_trace(*, sampled_ratio: float = 0.0) -> Trace:
    """A trace that begins here, for a caller who has none; sampled with that probability."""
    sampled = sampled_ratio > 0 and random.random() < sampled_ratio
    return Trace(_random_hex(128), new_span_id(), _SAMPLED if sampled else "00")


def new_span_id() -> str:
    """16 hex digits, never all zero."""
    return _random_hex(64)


def _random_hex(bits: int) -> str:
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"
