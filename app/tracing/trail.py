"""What one sampled request leaves for its trace, collected while it is answered. Without OpenTelemetry.

Nothing is wrapped: spans are made afterwards, from the times that are taken for metrics anyway. A request
that is not sampled has no trail, and costs a few looks at a context variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.http.trace import Trace, new_span_id, new_trace
from app.rewrite.answer import Judged
from app.tracing.declared import ARM, CACHE, CHECKPOINT, DIGEST, REASON

if TYPE_CHECKING:
    from app.contracts.reasons import Reason
    from app.rewrite.answer import Answer, Query, Stage

Attributes = Mapping[str, str | int | bool]

# Of the request this task works for, where it is sampled; set by the HTTP middleware.
TRAIL: ContextVar[Trail | None] = ContextVar("trail", default=None)


@dataclass(frozen=True, slots=True)
class Span:
    """One span: its ids in hex digits, its ends in nanoseconds of Unix time.

    `link` is (trace id, span id) of what it has come from without being a part of it.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    started_ns: int
    ended_ns: int
    attributes: Attributes = field(default_factory=dict)
    link: tuple[str, str] | None = None


class Trail:
    """The spans of one request.

    Args:
        trace: of the request; its span is the root of these.
        arrived_s: in the service's clock.
        arrived_ns: the same moment in Unix time.
        send: takes a span that ends after the request.
    """

    __slots__ = ("_arrived_ns", "_arrived_s", "_rewrites", "_send", "spans", "trace")

    def __init__(
        self, trace: Trace, *, arrived_s: float, arrived_ns: int, send: Callable[[Span], None]
    ) -> None:
        self.trace = trace
        self.spans: list[Span] = []
        self._arrived_s, self._arrived_ns = arrived_s, arrived_ns
        self._send = send
        self._rewrites: dict[int, str] = {}  # by identity: one of a batch may be asked for twice

    def root(self, name: str, ended: float, attributes: Attributes) -> Span:
        """The span of the request itself."""
        trace = self.trace
        return Span(
            name,
            trace.trace_id,
            trace.span_id,
            trace.parent_id,
            self._arrived_ns,
            self._at_ns(ended),
            attributes,
        )

    def add(
        self, name: str, began: float, ended: float, attributes: Attributes, parent_id: str | None = None
    ) -> str:
        """Add a span, by default a child of the request's; returns its id."""
        span_id = new_span_id()
        self.spans.append(
            Span(
                name,
                self.trace.trace_id,
                span_id,
                parent_id or self.trace.span_id,
                self._at_ns(began),
                self._at_ns(ended),
                attributes,
            )
        )
        return span_id

    def answered(self, answer: Answer, began: float) -> None:
        """Add the spans of a query that was answered: its own, and of each phase that took time.

        One phase follows the other at once, so that their beginnings are sums.
        """
        timings = answer.timings
        attributes = {
            ARM: str(answer.arm),
            CACHE: str(answer.cache),
            **_of(answer.checkpoint_id, answer.weights_digest, answer.reason),
        }
        own = self.add("rewrite", began, began + timings.total_s, attributes)
        self._rewrites[id(answer.query)] = own
        for phase, seconds in (
            ("queue", timings.queue_s),
            ("cache", timings.cache_s),
            ("engine", timings.engine_s),
            ("guard", timings.guard_s),
        ):
            if seconds > 0:
                self.add(phase, began, began + seconds, {}, own)
                began += seconds

    def staged(self, stage: Stage, reason: Reason | None, began: float, ended: float) -> None:
        """Add the span of a stage of signals."""
        self.add(stage, began, ended, {REASON: reason.value} if reason else {})

    def generated(self, query: Query, outcome: Judged | Reason, began: float, ended: float) -> None:
        """Send a span for a generation that ends now, where its query did not wait for it."""
        rewrite = self._rewrites.get(id(query))
        if rewrite is None:
            return  # somebody waits: it is that query's phase `engine`
        if isinstance(outcome, Judged):
            attributes = _of(outcome.checkpoint_id, outcome.weights_digest, outcome.reason)
        else:
            attributes = {REASON: outcome.value}
        own = new_trace()
        self._send(
            Span(
                "generate",
                own.trace_id,
                own.span_id,
                None,
                self._at_ns(began),
                self._at_ns(ended),
                attributes,
                (self.trace.trace_id, rewrite),
            )
        )

    def _at_ns(self, moment_s: float) -> int:
        """A moment of the service's clock in Unix time."""
        return self._arrived_ns + round((moment_s - self._arrived_s) * 1e9)


def _of(checkpoint_id: str, digest: str, reason: Reason | None) -> dict[str, str]:
    told = {CHECKPOINT: checkpoint_id, DIGEST: digest}
    return {**told, REASON: reason.value} if reason else told
