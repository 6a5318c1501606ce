"""The report as Markdown, from load.json alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtest.capacity import PRICE_PER_CORE_HOUR, Costs, Mix, Need, demand, need, read_costs, saturation

Told = Mapping[str, Any]
OVERVIEW = (
    ("journeys/s", "journeys_per_s", "{:.1f}"),
    ("answered", "answered_ratio", "{:.3%}"),
    ("shed", "shed_ratio", "{:.2%}"),
    ("failed", "failed_ratio", "{:.2%}"),
    ("rewrite p50 ms", "rewrite_p50_ms", "{:.0f}"),
    ("p99 ms", "rewrite_p99_ms", "{:.0f}"),
    ("signals p50 ms", "signals_p50_ms", "{:.0f}"),
    ("p99 ms", "signals_p99_ms", "{:.0f}"),
    ("cache hits", "hit_ratio", "{:.0%}"),
    ("events lost", "events_lost", "{:.0f}"),
    ("wrong version", "wrong_version", "{:.0f}"),
)
CHECKED = (
    *("trace", "hits predicted", "measured", "CPU ms predicted", "measured"),
    *("requests/s predicted", "measured", "predicted / measured"),
)
EXTRAPOLATED_PER_S = 100_000.0
HIT_RATIOS = (0.0, 0.5, 0.8, 0.95)
CORES, ZONES = 2, 3
UTILISATION, RANKING_UTILISATION = 0.6, 0.3
"""Of what the model says; half where replicas rank, for far beyond that they do not answer in time."""


def page(told: Told, drawn: Sequence[str]) -> str:
    """Return the report.

    Args:
        told: what load.json says.
        drawn: names of the plots beside it.
    """
    scenarios = told.get("scenarios", ())
    parts = [_head(told), _overview(scenarios)]
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in drawn if not _is_of(name, scenarios)]
    parts += [_scenario(one, drawn) for one in scenarios if "findings" in one]
    if "costs" in told:
        parts.append(_capacity(told))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(told: Told) -> str:
    unit, scale = told["unit"], told["scale"]
    before = unit.get("before")
    closed = f" ({before['by']}: {before['journeys_per_s']:.1f})" if before else ""
    short = "" if scale == 1 else f" **All times are shortened to {scale:g}: a trial, and no result.**"
    return f"""# Load

`make load` writes this (last {told["at"][:10]}, at {told["commit"]}, {told["machine"]}); generator and
servers share these cores.{short} Arrivals are Poisson by schedule, whatever is answered (open loop);
latencies count from the intended start. A journey is a rewrite, a thought, signals with the same query_id,
a thought, events. Queries: {told["corpus"]}. Rates are shares of {unit["journeys_per_s"]:.1f} journeys/s,
at which this machine is saturated by {unit["by"]}{closed}. PASS, FAIL: by
[slo.toml](../../loadtest/slo.toml); INVALID: the generator itself was late. What each scenario is:
[scenarios.toml](../../loadtest/scenarios.toml)."""


def _overview(scenarios: Sequence[Told]) -> str:
    rows = []
    for one in scenarios:
        measured = one.get("measures", {})
        cells = [_number(measured.get(measure), shown) for _, measure, shown in OVERVIEW]
        rows.append([one["name"], f"**{one['verdict']}** {one.get('not_run', '')}".strip(), *cells])
    return _table(["scenario", "verdict", *(name for name, *_ in OVERVIEW)], rows)


def _scenario(one: Told, drawn: Sequence[str]) -> str:
    rows = [
        [
            found["measure"],
            _number(found["value"], "{:.4g}"),
            found["limit"],
            found["unit"],
            "kept" if found["holds"] else "**broken**",
        ]
        for found in one["findings"]
    ]
    rate = f"a rate of 1 is {one['unit_per_s']:.1f} journeys/s"
    lines = [
        f"## {one['name']}: {one['verdict']}",
        f"{_sentence(one['why'])} {one['seconds']:.0f} s; {rate}; at {one['commit']}.",
    ]
    if one["incidents"]:
        lines.append("\n".join(_incident(incident) for incident in one["incidents"]))
    if one["rules_broken"]:
        lines.append("\n".join(f"- {count} times: {rule}" for rule, count in one["rules_broken"].items()))
    lines.append(_table(["measure", "value", "limit", "of", ""], rows))
    lines += [f"![{one['name']}]({name})" for name in drawn if name == f"{one['name']}.png"]
    return "\n\n".join(lines)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _incident(one: Told) -> str:
    to = f" to {one['to']}" if one["to"] else ""
    came = f"refused: {one['refused']}" if one["refused"] else "done"
    meant = "" if one["as_meant"] else " (**not as it had to be**)"
    took_s = one["end_s"] - one["start_s"]
    return f"- at {one['start_s']:.1f} s: {one['do']}{to}, {came} after {took_s:.1f} s{meant}"


def _capacity(told: Told) -> str:
    costs = read_costs(told)
    rows = []
    for hit_ratio in HIT_RATIOS:
        for signals in (0.0, 1.0):
            wanted = demand(costs, Mix(hit_ratio, signals=signals))
            found = need(
                wanted,
                rate=EXTRAPOLATED_PER_S,
                cores=CORES,
                utilisation=RANKING_UTILISATION if signals else UTILISATION,
                zones=ZONES,
                price_per_core_hour=PRICE_PER_CORE_HOUR,
            )
            rows.append([f"{hit_ratio:.0%}", f"{signals:g}", f"{wanted.total_s * 1000:.2f}", *_need(found)])
    head = [
        *("cache hits", "signals calls", "CPU ms", "rewrites/s a replica", "a core", "full first"),
        *("replicas", "cores", "$ per million"),
    ]
    return f"""## Capacity

CPU milliseconds of one request, by thread, from closed loops of one kind (`loadtest/costs.py`). The engine
{_waits(costs)}

{_table(["request", "event loop", "engine", "relevance model", "of the generator"], _costs(told["costs"]))}

Rewrites alone, at a cache of 200, that no cost was measured with: the hit ratio by Che's approximation,
saturation by the model ([docs/capacity.md](../../docs/capacity.md)), and what a closed loop then got.

{_table(CHECKED, _checks(told))}

{_in_time(told, costs)}

**{EXTRAPOLATED_PER_S:,.0f} rewrites/s, extrapolated**: nobody has measured it. Replicas of {CORES} cores
at {UTILISATION:.0%} of saturation, {RANKING_UTILISATION:.0%} where they rank; {ZONES} zones, one may be lost;
{Mix(0).candidates:.0f} candidates a signals call, ${PRICE_PER_CORE_HOUR:g} per core and hour (assumed).
`python -m loadtest.capacity` takes others.

{_table(head, rows)}

GPU: {"; ".join(told.get("gpu", ())) or "not measured"}."""


def _in_time(told: Told, costs: Costs) -> str:
    """What ramp says beside the model, which counts what is answered and not what is answered in time."""
    for one in told.get("scenarios", ()):
        if one["name"] == "ramp" and one.get("saturation_per_s"):
            seen = float(one["saturation_per_s"])
            said, _ = saturation(demand(costs, Mix(one["measures"]["hit_ratio"])), cores=CORES)
            return (
                f"**With signals the model is no promise of time**: it says {said:.1f} journeys/s, and from "
                f"{seen:.1f} on ({seen / said:.0%}) ramp has stages left out for want of time."
            )
    return "With signals: not measured against ramp."


def _waits(costs: Costs) -> str:
    shares = (f"{share:.0%} of that (beam of {width})" for width, share in sorted(costs.waits.items()))
    return f"waits while the event loop computes, for {' or '.join(shares)}."


def _costs(costs: Told) -> Iterable[list[str]]:
    named = {"rewrite, in the cache": costs["hit"]}
    named |= {f"rewrite, generated, beam of {width}": one for width, one in costs["miss"].items()}
    named |= {f"signals, {count} known candidates": one for count, one in costs["signals"].items()}
    for name, one in named.items():
        threads = ("loop_s", "engine_s", "relevance_s", "generator_s")
        yield [name, *(f"{one.get(thread, 0.0) * 1000:.2f}" for thread in threads)]


def _checks(told: Told) -> Iterable[list[str]]:
    for one in told.get("checks", ()):
        yield [
            f"Zipf({one['exponent']:g}) over {one['queries']:,}, beam of {one['beam_width']}",
            f"{one['predicted_hit_ratio']:.1%}",
            f"{one['measured_hit_ratio']:.1%}",
            f"{one['predicted_cpu_s'] * 1000:.2f}",
            f"{one['measured_cpu_s'] * 1000:.2f}",
            f"{one['predicted_per_s']:.1f}",
            f"{one['measured_per_s']:.1f}",
            f"{one['predicted_per_s'] / one['measured_per_s']:.2f}",
        ]


def _need(found: Need) -> list[str]:
    return [
        *(f"{found.replica_per_s:,.1f}", f"{found.per_core_per_s:,.1f}", found.bound_by),
        *(f"{found.replicas:,}", f"{found.cores:,}", f"{found.per_million:,.2f}"),
    ]


def _is_of(name: str, scenarios: Sequence[Told]) -> bool:
    return name.removesuffix(".png") in {one["name"] for one in scenarios}


def _number(value: float | None, shown: str) -> str:
    return "" if value is None else shown.format(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
