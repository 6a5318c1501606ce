"""What the words of closed sets mean, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.contracts.reasons import Reason

REASONS: Mapping[Reason, str] = {
    Reason.DEADLINE: "The time ran out. The generation goes on and warms the cache: ask again.",
    Reason.NEARLINE: "Not waited for: the generation is queued and will warm the cache. Ask again.",
    Reason.LOW_CONFIDENCE: "The model wrote something, but does not trust it enough.",
    Reason.GUARD: "The guard dropped every rewrite; the drops say why.",
    Reason.NO_CHANGE: "The model repeats the query: there is nothing to rewrite.",
    Reason.ENGINE_ERROR: "The engine failed on this query; the log says how.",
    Reason.ENGINE_UNAVAILABLE: "The engine is starting, stopped, or full; or nothing is loaded for this arm.",
    Reason.INPUT_TOO_LONG: "The query is longer than the model reads.",
    Reason.HOLDOUT: "The holdout always gets the original.",
    Reason.DISABLED: "Switched off: by the kill switch, a setting, or the stages that were launched.",
    Reason.RELEVANCE_UNAVAILABLE: "There is no relevance model (REWRITE_RELEVANCE), or it cannot answer.",
    Reason.RELEVANCE_ERROR: "The relevance model failed on these texts; the log says how.",
    Reason.NO_CANDIDATES: "No candidate was given: there is nothing to rank.",
}
