"""From what is known of a rollout to what its page shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.console.growth import Chart, Point, chart

MOST_LOOKS = 24
"""In the table beside a picture; the picture has all."""


def metrics_of(rollout: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each metric, the goal first, what it is held to, what is known, and the picture of it.

    Args:
        rollout: as `Orders.status` tells it.
        looks: as `Orders.growth` tells them.
    """
    aims = [{**rollout["plan"]["goal"], "margin": None, "tolerated": None}, *rollout["plan"]["guardrails"]]
    shown = [*looks, *_now(rollout, looks)]
    return [
        {
            **aim,
            "finding": finding,
            "word": _word(finding, is_goal=aim["margin"] is None),
            "chart": _chart(aim, place, shown),
            "looks": _thinned([(look, look["findings"][place]) for look in shown]),
        }
        for place, (aim, finding) in enumerate(zip(aims, rollout["verdict"]["findings"], strict=True))
    ]


def _now(rollout: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is known now, unless a look has seen as much."""
    searches = rollout["arms"]["canary"]["searches"]
    if searches <= (looks[-1]["searches"] if looks else 0):
        return []
    findings = rollout["verdict"]["findings"]
    return [{"at": None, "step": rollout["step"], "searches": searches, "findings": findings}]


def _chart(aim: Mapping[str, Any], place: int, looks: Sequence[Mapping[str, Any]]) -> Chart | None:
    points = [
        Point(look["searches"], *(look["findings"][place][key] for key in ("gain", "low", "high")))
        for look in looks
    ]
    first: dict[int, float] = {}
    for look in looks:
        first.setdefault(look["step"], look["searches"])
    starts = list(first.items())[1:]
    return chart(points, starts, margin=aim["margin"], harm=aim["tolerated"])


def _word(finding: Mapping[str, Any], *, is_goal: bool) -> tuple[str, str]:
    """What is shown of a metric, in a word and the kind of its colour."""
    if finding["harmful"]:
        return "harmful", "bad"
    if finding["harmless"]:
        return ("better" if is_goal else "within its margin"), "good"
    return "not sure yet", "open"


def _thinned(looks: Sequence[Any]) -> list[Any]:
    """At most so many of them, the last one among them, the newest first."""
    every = -(-len(looks) // MOST_LOOKS) or 1
    return list(looks[::-1][::every])
