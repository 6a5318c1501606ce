"""Examples of `/v1/signals` for the OpenAPI document."""

from __future__ import annotations

from typing import Any

REQUEST: dict[str, Any] = {
    "query": "in blue, size 42",
    "query_id": "q-1",
    "context": {"last_item": {"id": "B07", "title": "Acme running shoes", "text": "men, black"}},
    "stages": ["recall", "finerank"],
    "candidates": [
        {"id": "B11", "text": "Acme running shoes, men, black", "base_score": {"finerank": 0.62}},
        {"id": "B12", "text": "Acme running shoes, men, blue", "base_score": {"finerank": 0.58}},
    ],
    "deadline_ms": 300,
}
_ANSWER: dict[str, Any] = {
    "query_id": "q-1",
    "original": "in blue, size 42",
    "rewrites": [
        {"text": "acme running shoes men blue size 42", "logprob": -1.31, "confidence": 0.82, "rank": 1}
    ],
    "arm": "stable",
    "exposure": None,
    "checkpoint": {"id": "default-1", "weights_digest": "9f" * 32},
    "relevance_digest": "7a" * 32,
    "degraded": False,
    "reason": None,
    "remembered": False,
    "format": "corewrite",
    "stages": {
        "recall": {
            "reason": None,
            "embedding_reason": None,
            "queries": [
                {
                    "text": "acme running shoes men blue size 42",
                    "weight": 1.23,
                    "embedding": [0.6, -0.8],
                }
            ],
        },
        "finerank": {
            "reason": None,
            "documents": [
                {"id": "B11", "base_score": 0.62, "rewrite": 0.31, "phi": 0.7, "score": 0.434},
                {"id": "B12", "base_score": 0.58, "rewrite": 0.74, "phi": 1.43, "score": 0.8294},
            ],
        },
    },
    "timings_ms": {"rewrite": 41.9, "recall": 3.2, "finerank": 12.5, "total": 57.7},
}
_DEGRADED: dict[str, Any] = {
    **_ANSWER,
    "rewrites": [],
    "degraded": True,
    "reason": "no_change",
    "stages": {
        "recall": {"reason": "no_change", "embedding_reason": "no_change", "queries": []},
        "finerank": {
            "reason": "no_change",
            "documents": [
                {"id": "B11", "base_score": 0.62, "rewrite": None, "phi": 1.0, "score": 0.62},
                {"id": "B12", "base_score": 0.58, "rewrite": None, "phi": 1.0, "score": 0.58},
            ],
        },
    },
    "timings_ms": {"rewrite": 30.1, "recall": 0.01, "finerank": 0.01, "total": 30.2},
}
ANSWERS: dict[str, Any] = {"signals": {"value": _ANSWER}, "neutral": {"value": _DEGRADED}}
