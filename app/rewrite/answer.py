"""What goes through the request path: a query in, an answer out. Frozen records, no behaviour to speak of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from app.contracts.prompt import NO_CONTEXT, Context
from app.rollout.assignment import Arm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.contracts.reasons import Drop, Reason
    from app.rollout.evidence import Cell

Stage = Literal["recall", "rawrank", "finerank"]
CacheUse = Literal["hit", "shared", "miss", "none"]
Mode = Literal["online", "nearline", "auto"]
STAGES: tuple[Stage, ...] = ("recall", "rawrank", "finerank")


@dataclass(frozen=True, slots=True)
class Query:
    """A valid request. `text` is the query exactly as it came in; `stages` are echoed to the caller.

    `mode` None is the service's own; `arm` is what a tester asks for, who counts for nothing.
    """

    text: str
    query_id: str
    client_id: str | None = None
    context: Context = NO_CONTEXT
    locale: str | None = None
    deadline_ms: int | None = None
    num_rewrites: int = 1
    stages: tuple[Stage, ...] = STAGES
    mode: Mode | None = None
    arm: Arm | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite: natural-log probability of the whole sequence, calibrated confidence (0..1)."""

    text: str
    logprob: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One generation after guard and confidence: a function of its cache key alone.

    `rewrites` are the ones that may be shown, best first. `reason` says why there are none, and is None
    exactly where there is one.
    """

    rewrites: tuple[Rewrite, ...]
    reason: Reason | None
    drops: Mapping[Drop, int]
    weights_digest: str
    checkpoint_id: str
    guard_s: float = 0.0


@dataclass(slots=True)
class Timings:
    """Seconds per phase of one request; a phase that did not happen took 0."""

    queue_s: float = 0.0
    cache_s: float = 0.0
    engine_s: float = 0.0
    guard_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service says to one query. `reason` is None exactly where there are rewrites.

    `launched` are the stages that may use the rewrites in this arm, whatever the caller asks for; `cell` is
    where the search counts, and `exposure` the token that says so to events.
    """

    query: Query
    rewrites: tuple[Rewrite, ...]
    reason: Reason | None
    cache: CacheUse
    arm: Arm
    checkpoint_id: str
    weights_digest: str
    drops: Mapping[Drop, int] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    launched: tuple[Stage, ...] = STAGES
    cell: Cell | None = None
    exposure: str | None = None
