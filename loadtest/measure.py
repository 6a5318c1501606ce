"""From records to numbers: what limits are put on, what is drawn over time, where saturation is. Pure.

Latencies are milliseconds from the intended start to the end of the answer, over answers with status 200: a
refusal is quick, and would flatter them. A number that nothing was measured for is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.records import ALTERED, CUT, EVENTS, RETRIED, REWRITE, SHED, SIGNALS, Records

OK = 200
GOOD_RATIO = 0.95
"""Of a window's requests, below which the service counts as saturated."""
Mask = NDArray[np.bool_]


def measures(records: Records, *, start_s: float, end_s: float) -> dict[str, float | None]:
    """Return what is to be known of the requests that were intended in [start_s, end_s)."""
    rows = records.rows
    within = (rows["intended"] >= start_s) & (rows["intended"] < end_s)
    asked = within & (rows["kind"] != EVENTS)
    answered = asked & (rows["status"] == OK)
    shed = asked & _flagged(records, SHED)
    rewrites, signals = answered & (rows["kind"] == REWRITE), answered & (rows["kind"] == SIGNALS)
    events = within & (rows["kind"] == EVENTS) & (rows["status"] == OK)
    failures = records.is_word("reason", ("engine_error", "engine_unavailable"))
    refused = (rows["kind"] == EVENTS) & (rows["status"] != OK)
    return {
        "requests": float(asked.sum()),
        "requests_per_s": float(asked.sum()) / (end_s - start_s),
        "journeys_per_s": float((asked & (rows["kind"] == REWRITE)).sum()) / (end_s - start_s),
        "answered_ratio": _ratio(answered, asked),
        "shed_ratio": _ratio(shed, asked),
        "failed_ratio": _ratio(asked & ~answered & ~shed, asked),
        "good_ratio": _ratio(_good(records) & asked, asked),
        "rewrite_p50_ms": _latency_ms(records, rewrites, 50),
        "rewrite_p99_ms": _latency_ms(records, rewrites, 99),
        "signals_p50_ms": _latency_ms(records, signals, 50),
        "signals_p99_ms": _latency_ms(records, signals, 99),
        "events_p99_ms": _latency_ms(records, events, 99),
        "deadline_ratio": _ratio(rewrites & records.is_word("reason", ["deadline"]), rewrites),
        "cut_ratio": _ratio(signals & _flagged(records, CUT), signals),
        "fallback_ratio": _ratio(answered & failures, answered),
        "hit_ratio": _ratio(rewrites & records.is_word("cache", ["hit"]), rewrites),
        "retried_ratio": _ratio(answered & _flagged(records, RETRIED), answered),
        "felt": float((within & (failures | refused | _flagged(records, RETRIED))).sum()),
        "altered": float((answered & _flagged(records, ALTERED)).sum()),
    }


def lag_p99_ms(
    records: Records, beats: Sequence[tuple[float, float]], *, start_s: float, end_s: float
) -> float:
    """Return how late the generator was, at p99: the worse of sending and of its own clock."""
    rows = records.rows
    rows = rows[(rows["intended"] >= start_s) & (rows["intended"] < end_s)]
    late = [late_s for at, late_s in beats if start_s <= at < end_s]
    found = [np.percentile(values, 99) for values in (rows["sent"] - rows["intended"], late) if len(values)]
    return float(max(found, default=0.0)) * 1000


def windows(records: Records, *, seconds: float, width_s: float) -> list[dict[str, Any]]:
    """Return offered, answered and latencies by window of the intended start."""
    edges = np.arange(0.0, seconds, width_s)
    rows, good = records.rows, _good(records)
    asked = rows["kind"] != EVENTS
    place = np.floor(rows["intended"] / width_s).astype(int)
    told = []
    for number, edge in enumerate(edges):
        inside = asked & (place == number)
        answered = inside & (rows["status"] == OK)
        shed = inside & _flagged(records, SHED)
        told.append(
            {
                "at_s": float(edge),
                "journeys_per_s": float((inside & (rows["kind"] == REWRITE)).sum()) / width_s,
                "offered_per_s": float(inside.sum()) / width_s,
                "answered_per_s": float(answered.sum()) / width_s,
                "good_ratio": _ratio(inside & good, inside),
                "shed_per_s": float(shed.sum()) / width_s,
                "failed_per_s": float((inside & ~answered & ~shed).sum()) / width_s,
                **{
                    f"{name}_p{percent}_ms": _latency_ms(records, answered & (rows["kind"] == kind), percent)
                    for name, kind in (("rewrite", REWRITE), ("signals", SIGNALS))
                    for percent in (50, 99)
                },
            }
        )
    return told


def saturation(found: Sequence[dict[str, Any]], *, warm_s: float) -> float | None:
    """Return the journeys per second at which a rising load saturates.

    That is the highest intended rate of a window before the first two in a row whose requests are not well
    answered (200, and no part left out for want of time) in GOOD_RATIO of the cases: one alone may be chance.
    None: there is no such window.
    """
    judged = [one for one in found if one["at_s"] >= warm_s and one["good_ratio"] is not None]
    bad = [one["good_ratio"] < GOOD_RATIO for one in judged]
    full = next((place for place, two in enumerate(pairwise(bad)) if all(two)), len(judged))
    rates = [
        float(one["intended_per_s"]) for one, is_bad in zip(judged[:full], bad, strict=False) if not is_bad
    ]
    return max(rates, default=None)


def slope_per_min(samples: Iterable[tuple[float, float]], *, start_s: float) -> float | None:
    """Return the least-squares slope, per minute, of (seconds, value) from a moment on."""
    kept = np.array([(at, value) for at, value in samples if at >= start_s])
    if len(kept) < 3:  # noqa: PLR2004 -- two always lie on a line
        return None
    return float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0]) * 60


def _good(records: Records) -> Mask:
    late = records.is_word("reason", ["deadline"]) | _flagged(records, CUT)
    found: Mask = (records.rows["status"] == OK) & ~late
    return found


def _flagged(records: Records, flag: int) -> Mask:
    found: Mask = (records.rows["flags"] & flag) > 0
    return found


def _ratio(part: Mask, whole: Mask) -> float | None:
    return float((part & whole).sum() / whole.sum()) if whole.any() else None


def _latency_ms(records: Records, which: Mask, percent: float) -> float | None:
    if not which.any():
        return None
    rows = records.rows[which]
    return float(np.percentile(rows["done"] - rows["intended"], percent, method="inverted_cdf")) * 1000
