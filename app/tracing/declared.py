"""Every span of the service and every attribute on it, declared once.

`docs/metrics.md` is written from here; a test fails where what is sent is anything else. No attribute has a
query's text: what a span may say about it is what a log line says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

REASON = "corewrite.reason"
ARM = "corewrite.arm"
CACHE = "corewrite.cache"
CHECKPOINT = "corewrite.checkpoint.id"
DIGEST = "corewrite.checkpoint.digest"

# Fields of the request's log line that its span has too, under these names.
LOGGED: Mapping[str, str] = {
    "query_hash": "corewrite.query_hash",
    "query_chars": "corewrite.query_chars",
    "num_rewrites": "corewrite.num_rewrites",
    "reason": REASON,
    "cache": CACHE,
    "deadline_by": "corewrite.deadline_by",
    "arm": ARM,
    "items": "corewrite.items",
    "candidates": "corewrite.candidates",
    "remembered": "corewrite.remembered",
    "error": "corewrite.error",
}

_REASON = "why there is no rewrite; the word of body, header, metric and log"
_PHASE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """One span: its name, what it spans, whose child it is, and what its attributes mean."""

    name: str
    kind: Literal["server", "internal"]
    parent: str
    help: str
    attributes: Mapping[str, str]


REQUEST = SpanSpec(
    "{method} {route}",
    "server",
    "the caller's",
    "One request. Its ids are those of `traceparent` in the answer and of the log lines.",
    {
        "http.request.method": "method; `_OTHER` where it is none of HTTP's",
        "http.route": "route, where there is one",
        "http.response.status_code": "status",
        "url.path": "path, cut at 128 characters; never its query string",
        "url.scheme": "http or https",
        "server.address": "host that was asked for",
        "server.port": "its port",
        "network.protocol.version": "version of HTTP",
        "error.type": "status, from 500 on",
        **{name: f"field `{field}` of the log line" for field, name in LOGGED.items()},
    },
)
SPANS: tuple[SpanSpec, ...] = (
    REQUEST,
    SpanSpec(
        "rewrite",
        "internal",
        "request",
        "One query, admission to answer; a batch has one for each item.",
        {
            REASON: _REASON,
            ARM: "stable, canary or holdout",
            CACHE: "hit, shared, miss or none",
            CHECKPOINT: "checkpoint that the answer names",
            DIGEST: "SHA-256 of its weights",
        },
    ),
    SpanSpec("queue", "internal", "rewrite", "Waiting for admission.", _PHASE),
    SpanSpec("cache", "internal", "rewrite", "Looking into the caches.", _PHASE),
    SpanSpec("engine", "internal", "rewrite", "Waiting for the engine, or for a flight of others.", _PHASE),
    SpanSpec("guard", "internal", "rewrite", "Guard and confidence.", _PHASE),
    *(
        SpanSpec(
            stage,
            "internal",
            "request",
            f"Signals for {stage}, until they are ready.",
            {REASON: "why the stage is neutral"},
        )
        for stage in ("recall", "rawrank", "finerank")
    ),
    SpanSpec(
        "generate",
        "internal",
        "none; linked to its rewrite",
        "A generation that went on, or began, after its query was answered; a trace of its own.",
        {
            REASON: _REASON,
            CHECKPOINT: "checkpoint that generated",
            DIGEST: "SHA-256 of its weights",
        },
    ),
)
