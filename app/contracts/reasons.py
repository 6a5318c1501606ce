"""The closed sets of words that say why an answer has no rewrite, or fewer than asked for.

The same word appears in the body, the response header, the metric label and the log line.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an answer carries the original query alone (`degraded: true`), or a ranking stage is neutral."""

    DEADLINE = "deadline"
    """The budget ran out; the generation goes on in the background and warms the cache."""
    NEARLINE = "nearline"
    """Not waited for, as asked: the generation is queued and will warm the cache."""
    LOW_CONFIDENCE = "low_confidence"
    """The model wrote something, but does not trust it enough."""
    GUARD = "guard"
    """Every rewrite was dropped by the guard; `drops` says why."""
    NO_CHANGE = "no_change"
    """The model repeats the query: there is nothing to rewrite."""
    ENGINE_ERROR = "engine_error"
    """The engine failed on this query."""
    ENGINE_UNAVAILABLE = "engine_unavailable"
    """The engine is starting, stopped, or its queue is full."""
    INPUT_TOO_LONG = "input_too_long"
    """The query is longer than the model reads."""
    HOLDOUT = "holdout"
    """The client belongs to the share of users who always get the original."""
    DISABLED = "disabled"
    """Rewriting is switched off by a setting, or the stage by its weight."""
    RELEVANCE_UNAVAILABLE = "relevance_unavailable"
    """There is no relevance model, or it cannot answer."""
    RELEVANCE_ERROR = "relevance_error"
    """The relevance model failed on these texts, or its answer holds no usable number."""
    NO_CANDIDATES = "no_candidates"
    """No candidate came with the request: there is nothing to rank."""


STAGE_REASONS = frozenset({Reason.RELEVANCE_UNAVAILABLE, Reason.RELEVANCE_ERROR, Reason.NO_CANDIDATES})
"""What only a stage of `/v1/signals` says: there was a rewrite, and nothing came of it there."""


FALLBACKS = frozenset(
    {Reason.DEADLINE, Reason.NEARLINE, Reason.ENGINE_ERROR, Reason.ENGINE_UNAVAILABLE, Reason.INPUT_TOO_LONG}
)
"""Why there is no rewrite where there might have been one: nobody knows what the model would have said."""


class Drop(StrEnum):
    """Why the guard dropped one rewrite."""

    EMPTY = "empty"
    COPY = "copy"
    DUPLICATE = "duplicate"
    TOO_LONG = "too_long"
    TRUNCATED = "truncated"
    REPEATED_TOKENS = "repeated_tokens"
    CONTROL_CHARACTER = "control_character"
    WRONG_SCRIPT = "wrong_script"
    LOST_NUMBER = "lost_number"
    LOST_NEGATION = "lost_negation"
    LOST_QUOTE = "lost_quote"
