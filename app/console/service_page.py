"""The page of this process: what waits, what is kept, how long phases take, why answers are what they are."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from starlette.requests import Request
from starlette.responses import Response

from app.console.quantiles import quantile
from app.console.words import REASONS
from app.contracts.reasons import Reason
from app.engines.breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

    from app.console.access import Viewer
    from app.console.pages import Pages
    from app.settings import Settings
    from app.telemetry import Metrics

REFRESH_S = 5
_PHASES = ("queue", "cache", "engine", "guard", "total")
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@dataclass(frozen=True, slots=True)
class ServicePage:
    """The page; every number of it is one of `/metrics`, of this process since it started."""

    settings: Settings
    pages: Pages
    metrics: Metrics

    async def show(self, _request: Request, viewer: Viewer) -> Response:
        """GET /console/service."""
        samples = samples_of(self.metrics.registry)
        return await self.pages.page(
            "service.html",
            viewer,
            section="service",
            seconds=REFRESH_S,
            **figures(samples),
            limits={
                "inflight": self.settings.max_inflight,
                "waiting": self.settings.max_waiting,
                "signals": self.settings.max_signals,
                "backlog": self.settings.nearline_max_queue,
                "entries": self.settings.cache_entries,
            },
            engine=self.settings.engine,
            mode=self.settings.mode,
            shared=self.settings.redis_url is not None,
        )


def samples_of(registry: CollectorRegistry) -> Samples:
    """Return the value of each sample, by name and by its labels in their order."""
    found: Samples = defaultdict(dict)
    for metric in registry.collect():
        for sample in metric.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def figures(samples: Samples) -> dict[str, Any]:
    """Return what the page shows, out of the samples of `/metrics`. Pure."""

    def value(name: str, **labels: str) -> float:
        return samples.get(f"corewrite_{name}", {}).get(tuple(sorted(labels.items())), 0.0)

    def by(name: str, label: str) -> dict[str, float]:
        return {dict(labels)[label]: n for labels, n in samples.get(f"corewrite_{name}", {}).items()}

    requests = samples.get("corewrite_requests_total", {})
    outcomes = sorted(
        ((dict(labels)["outcome"], dict(labels)["reason"], n) for labels, n in requests.items()),
        key=lambda one: -one[2],
    )
    hits, misses = (value("cache_requests_total", result=result) for result in ("hit", "miss"))
    return {
        "inflight": value("inflight_requests", gate="rewrite"),
        "waiting": value("queue_depth", gate="rewrite"),
        "signals": value("inflight_requests", gate="signals"),
        "background": value("background_generations"),
        "backlog": value("nearline_backlog"),
        "nearline": {
            result: value("nearline_total", result=result) for result in ("queued", "known", "dropped")
        },
        "entries": value("cache_entries"),
        "hits": hits,
        "lookups": hits + misses,
        "shared_cache": by("shared_cache_total", "result"),
        "breaker": next(
            (state for state in get_args(BreakerState) if value("engine_breaker", state=state)), "unknown"
        ),
        "engine_requests": by("engine_requests", "state"),
        "restarts": value("engine_restarts_total"),
        "engine_errors": by("engine_errors_total", "reason"),
        "tokens": by("engine_tokens_total", "kind"),
        "shed": by("shed_total", "cause"),
        "drops": sorted(by("guard_drops_total", "drop").items(), key=lambda one: -one[1]),
        "arms": by("arm_requests_total", "arm"),
        "phases": [(phase, *_phase(samples, phase)) for phase in _PHASES],
        "outcomes": outcomes,
        "requests": sum(n for _, _, n in outcomes),
        "rewritten": sum(n for outcome, _, n in outcomes if outcome == "rewritten"),
        "meanings": {str(reason): REASONS[reason] for reason in Reason},
    }


def _phase(samples: Samples, phase: str) -> tuple[float, float | None, float | None]:
    """How often it was, and its p50 and p95 in seconds."""
    ends: Mapping[tuple[tuple[str, str], ...], float] = samples.get("corewrite_phase_seconds_bucket", {})
    buckets = sorted(
        (math.inf if dict(labels)["le"] == "+Inf" else float(dict(labels)["le"]), n)
        for labels, n in ends.items()
        if dict(labels)["phase"] == phase
    )
    return (buckets[-1][1] if buckets else 0.0), quantile(buckets, 0.5), quantile(buckets, 0.95)
