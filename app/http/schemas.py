"""The wire: what a client may send and what it gets. Requests are validated here, once, and strictly.

The answer models document the shape; answers are written by `wire_answer` directly, and tests hold the two
together, so that no answer is validated on its way out.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.contracts.prompt import MAX_QUERY_CHARS, NO_CONTEXT, Context, Item
from app.contracts.reasons import Drop, Reason
from app.rewrite.answer import STAGES, Answer, CacheUse, Mode, Query, Stage
from app.rollout.assignment import Arm

MAX_BATCH = 256

# No control characters but tab and line breaks, and at least one character that shows: not white space, no
# zero-width or bidirectional mark. Only constructs that Rust's, Python's and ECMA's expressions share.
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_INVISIBLE = (
    r"\x09\x0a\x0d\x20\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u2069\u3000\ufeff"
)
VISIBLE = rf"^[^{_CONTROL}]*[^{_CONTROL}{_INVISIBLE}][^{_CONTROL}]*$"
NO_CONTROLS = rf"^[^{_CONTROL}]*$"
LOCALE = r"^[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?$"

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY_CHARS, pattern=VISIBLE)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=VISIBLE)]


def _distinct(stages: list[Stage]) -> list[Stage]:
    if len(set(stages)) != len(stages):
        raise ValueError("each stage may be named once")
    return stages


def _whole(value: object) -> object:
    """JSON has one kind of number, and to JSON Schema 740.0 is an integer: so it is here."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Milliseconds = Annotated[int, Field(ge=1, le=60_000)]
_Count = Annotated[int, Field(ge=1, le=4)]
Milliseconds = Annotated[_Milliseconds, BeforeValidator(_whole, json_schema_input_type=_Milliseconds)]
Count = Annotated[_Count, BeforeValidator(_whole, json_schema_input_type=_Count)]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class WireItem(_Wire):
    """The item the user looked at last."""

    id: Identifier | None = None
    title: Text
    text: Annotated[str, StringConstraints(max_length=4096, pattern=NO_CONTROLS)] = ""


class WireContext(_Wire):
    """What is known beside the query; earlier queries oldest first."""

    last_item: WireItem | None = None
    previous_queries: Annotated[list[Text], Field(max_length=10)] = []

    def to_context(self) -> Context:
        """The context the prompt is rendered with."""
        item = self.last_item
        return Context(
            last_item=None if item is None else Item(title=item.title, text=item.text),
            previous_queries=tuple(self.previous_queries),
        )


class RewriteRequest(_Wire):
    """One query to rewrite."""

    query: Text = Field(description="The query as the user typed it; it comes back byte-identical.")
    query_id: Identifier | None = Field(default=None, description="Echoed; made up where absent.")
    client_id: Identifier | None = Field(default=None, description="Whose query it is, for assignment.")
    context: WireContext | None = None
    locale: Annotated[str, StringConstraints(pattern=LOCALE)] | None = Field(
        default=None, description="Language, script, region: `en`, `en-GB`, `zh-Hant-TW`."
    )
    deadline_ms: Milliseconds | None = Field(
        default=None, description="Milliseconds this answer may take; the server's own limit still applies."
    )
    mode: Mode | None = Field(
        default=None,
        description=(
            "What a cache miss does. online: waits, up to the deadline. nearline: the original at once, and "
            "the rewrite for the next who asks. auto: online where there is time and room. Absent: the "
            "server's."
        ),
    )
    num_rewrites: Count = Field(default=1, description="At most so many rewrites.")
    # A factory, because pydantic copies a mutable default deeply, which costs as much as parsing the rest.
    stages: Annotated[
        list[Stage],
        Field(min_length=1, max_length=len(STAGES), json_schema_extra={"uniqueItems": True}),
        AfterValidator(_distinct),
    ] = Field(
        default_factory=lambda: list(STAGES),
        description="Ranking stages that will use the rewrite; echoed.",
        json_schema_extra={"default": [*STAGES]},
    )

    def to_query(self) -> Query:
        """The query the request path works on."""
        return Query(
            text=self.query,
            query_id=self.query_id or str(uuid.uuid4()),
            client_id=self.client_id,
            context=NO_CONTEXT if self.context is None else self.context.to_context(),
            locale=self.locale,
            deadline_ms=self.deadline_ms,
            num_rewrites=self.num_rewrites,
            stages=tuple(self.stages),
            mode=self.mode,
        )


class BatchRequest(_Wire):
    """Up to 256 queries; an item that is not valid gets an error in its place, the others an answer."""

    requests: Annotated[list[RewriteRequest], Field(min_length=1, max_length=MAX_BATCH)]


class WireError(BaseModel):
    """The one shape of every error."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="A word that does not vary: invalid_request, overloaded, ...")
    detail: str = Field(description="What is wrong, naming the field.")


class WireRewrite(BaseModel):
    """One rewrite."""

    model_config = ConfigDict(extra="forbid")

    text: str
    logprob: float = Field(le=0, description="Natural-log probability of the whole sequence.")
    confidence: float = Field(ge=0, le=1, description="Calibrated probability that the rewrite is right.")
    rank: int = Field(ge=1)


class WireCheckpoint(BaseModel):
    """The checkpoint that wrote every rewrite of this answer."""

    model_config = ConfigDict(extra="forbid")

    id: str
    weights_digest: str


class WireTimings(BaseModel):
    """Milliseconds per phase; 0 where a phase did not happen."""

    model_config = ConfigDict(extra="forbid")

    queue: float = Field(ge=0)
    cache: float = Field(ge=0)
    engine: float = Field(ge=0)
    guard: float = Field(ge=0)
    total: float = Field(ge=0)


class AnswerHead(BaseModel):
    """What every answer begins with: the original first, then what may be put beside it."""

    model_config = ConfigDict(extra="forbid")

    query_id: str
    original: str = Field(description="The query, byte-identical to what came in.")
    rewrites: list[WireRewrite] = Field(description="Distinct from the original and each other, best first.")
    arm: Arm
    checkpoint: WireCheckpoint
    exposure: str | None = Field(
        description="To be sent back with events of this search, as it is; null where nothing is counted."
    )
    degraded: bool = Field(description="True exactly where there is no rewrite; then `reason` says why.")
    reason: Reason | None


class RewriteAnswer(AnswerHead):
    """The original first, then what may be put beside it."""

    drops: dict[Drop, int] = Field(description="Completions the guard dropped, by why.")
    cache: CacheUse = Field(
        description="hit; shared: waited for another's generation; miss; none: not asked."
    )
    stages: list[Stage] = Field(description="Of those asked for, the ones that may use the rewrites.")
    timings_ms: WireTimings


class BatchAnswer(BaseModel):
    """One entry per request, in order."""

    model_config = ConfigDict(extra="forbid")

    responses: list[RewriteAnswer | WireError]


class Alive(BaseModel):
    """The process runs its event loop."""

    status: Literal["alive"]


class Readiness(BaseModel):
    """Whether to send traffic here, and what would answer it."""

    status: Literal["ready", "starting", "draining"]
    checkpoint: WireCheckpoint
    engine: dict[str, int] = Field(description="The engine's own counts, where it has any.")
    rollouts: dict[str, str | None] | None = Field(
        description="Whether their store is reachable, when it was, and the canary loaded; null: no store."
    )


def wire_answer(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; `RewriteAnswer` documents it."""
    timings = answer.timings
    return {
        **wire_head(answer),
        "drops": answer.drops,
        "cache": answer.cache,
        "stages": [stage for stage in answer.query.stages if stage in answer.launched],
        "timings_ms": {
            "queue": round(timings.queue_s * 1000, 3),
            "cache": round(timings.cache_s * 1000, 3),
            "engine": round(timings.engine_s * 1000, 3),
            "guard": round(timings.guard_s * 1000, 3),
            "total": round(timings.total_s * 1000, 3),
        },
    }


def wire_head(answer: Answer) -> dict[str, Any]:
    """The fields that every answer begins with; `AnswerHead` documents them."""
    return {
        "query_id": answer.query.query_id,
        "original": answer.query.text,
        "rewrites": [
            {"text": rewrite.text, "logprob": rewrite.logprob, "confidence": rewrite.confidence, "rank": rank}
            for rank, rewrite in enumerate(answer.rewrites, start=1)
        ],
        "arm": answer.arm,
        "exposure": answer.exposure,
        "checkpoint": {"id": answer.checkpoint_id, "weights_digest": answer.weights_digest},
        "degraded": answer.reason is not None,
        "reason": answer.reason,
    }
