"""How many replicas a load takes, at what price: `python -m loadtest.capacity --rate 100000 --hit-ratio 0.8`.

From CPU seconds per request, as `make load` has measured them on one machine (results/load/load.json). A
replica is three threads: the event loop, the engine's, the relevance model's. At a utilisation of u,

    rate of a replica = u / max(loop, engine + waiting, relevance, (loop + engine + relevance) / cores)

in rewrites per second, each with its share of hits, misses and signals calls. Linear in everything: beyond
one machine it is an extrapolation, which nobody has measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from loadtest.hit_ratio import lru_hit_ratio, zipf_shares

RESULTS = Path("results")
PRICE_PER_CORE_HOUR = 0.05
"""US dollars: assumed, near the list price of a virtual core of the large clouds."""
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds that one request takes of each thread of a replica.

    Args:
        loop_s: of the event loop.
        engine_s: of the engine.
        relevance_s: of the relevance model.
        waiting_s: of nobody: the engine has work and waits for the event loop (for Python's lock).
    """

    loop_s: float = 0.0
    engine_s: float = 0.0
    relevance_s: float = 0.0
    waiting_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Of all threads."""
        return self.loop_s + self.engine_s + self.relevance_s

    def plus(self, other: Cost, times: float = 1.0) -> Cost:
        """Both together, the other one so many times."""
        return Cost(*(getattr(self, one.name) + times * getattr(other, one.name) for one in fields(Cost)))


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured.

    Args:
        hit: of a rewrite that the cache has.
        miss: of one that it has not, by the width of the beam.
        signals: of a signals call whose rewrite and documents are known, by the number of candidates.
        waits: share of the event loop's time for which the engine waits, by the width of the beam.
    """

    hit: Cost
    miss: Mapping[int, Cost]
    signals: Mapping[int, Cost]
    waits: Mapping[int, float]

    def of_signals(self, candidates: float) -> Cost:
        """On the line through the fewest and the most candidates that were measured."""
        few, many = min(self.signals), max(self.signals)
        each = self.signals[many].plus(self.signals[few], -1.0)
        return self.signals[few].plus(each, (candidates - few) / (many - few))


@dataclass(frozen=True, slots=True)
class Mix:
    """What one rewrite request brings along.

    Args:
        hit_ratio: of the cache.
        signals: calls for each rewrite.
        candidates: of a signals call.
        beam_width: of a generation.
    """

    hit_ratio: float
    signals: float = 1.0
    candidates: float = 35.0
    beam_width: int = 4


@dataclass(frozen=True, slots=True)
class Need:
    """What a rate takes.

    Args:
        replica_per_s: rewrites per second of one replica, at the utilisation aimed at.
        bound_by: which thread is full first, or all cores together.
        replicas: with those in reserve.
        spare: of them, those in reserve.
        per_million: of the currency of the price, for a million rewrites with all they bring along.
    """

    replica_per_s: float
    bound_by: str
    replicas: int
    spare: int
    cores: int
    per_core_per_s: float
    per_million: float


def demand(costs: Costs, mix: Mix) -> Cost:
    """Return the CPU seconds of one rewrite with all it brings along.

    Raises:
        ValueError: a width of the beam that was not measured.
    """
    if mix.beam_width not in costs.miss:
        known = ", ".join(map(str, sorted(costs.miss)))
        raise ValueError(f"no cost of a beam of {mix.beam_width} was measured, only of {known}")
    rewrites = Cost().plus(costs.hit, mix.hit_ratio).plus(costs.miss[mix.beam_width], 1 - mix.hit_ratio)
    both = rewrites.plus(costs.of_signals(mix.candidates), mix.signals) if mix.signals else rewrites
    return replace(both, waiting_s=costs.waits[mix.beam_width] * both.loop_s)


def saturation(wanted: Cost, *, cores: float) -> tuple[float, str]:
    """Return the requests per second at which one replica is full, and what is full then."""
    seconds = {
        "event loop": wanted.loop_s,
        "engine": wanted.engine_s + wanted.waiting_s,
        "relevance model": wanted.relevance_s,
        "cores": wanted.total_s / cores,
    }
    full = max(seconds, key=seconds.__getitem__)
    return 1 / seconds[full], full


def need(
    wanted: Cost,
    *,
    rate: float,
    cores: int,
    utilisation: float,
    zones: int,
    price_per_core_hour: float,
) -> Need:
    """Return what it takes to serve `rate` requests per second.

    Args:
        wanted: by one request.
        rate: requests per second.
        cores: of a replica.
        utilisation: share of its saturation that a replica is to be loaded with.
        zones: of which one may be lost, the others serving all of it; 1: one replica may be lost.
        price_per_core_hour: in any currency.
    """
    full, bound_by = saturation(wanted, cores=cores)
    each = full * utilisation
    busy = math.ceil(rate / each)
    replicas = busy + 1 if zones == 1 else math.ceil(busy / (zones - 1)) * zones
    total = replicas * cores
    per_million = total * price_per_core_hour / SECONDS_PER_HOUR / rate * 1e6
    return Need(each, bound_by, replicas, replicas - busy, total, each / cores, per_million)


def read_costs(told: Mapping[str, Any]) -> Costs:
    """Return the costs of a load.json. Raises KeyError where it has none."""

    def cost(one: Mapping[str, float]) -> Cost:
        return Cost(*(one.get(field.name, 0.0) for field in fields(Cost)))

    by = {
        kind: {int(size): cost(one) for size, one in told["costs"][kind].items()}
        for kind in ("miss", "signals")
    }
    waits = {int(width): _waits(one) for width, one in told["costs"]["miss"].items()}
    return Costs(cost(told["costs"]["hit"]), by["miss"], by["signals"], waits)


def _waits(misses: Mapping[str, float]) -> float:
    # The loop that measured misses always had work for the engine. Where that computed for less than all of
    # the time, it waited for the event loop: of two cores 1.2 were busy.
    return min(max(1 / misses["per_s"] - misses["engine_s"], 0.0) / misses["loop_s"], 1.0)


def gpu_rows(results: Path) -> list[str]:
    """Return what was measured on a GPU: requests/s in results/bench-*.yaml whose machine has one."""
    import yaml  # noqa: PLC0415 -- only here

    found = []
    for path in sorted(results.glob("bench-*.yaml")):
        found += [
            f"{row['row']}: {row['value']:g} requests/s on {row['machine']}"
            for row in yaml.safe_load(path.read_text(encoding="utf-8")) or ()
            if "GPU" in row["machine"].upper().split() and row["unit"] == "requests/s"
        ]
    return found


def told(wanted: Need, rate: float, measured_per_s: float | None) -> str:
    """Return it in lines."""
    lines = [
        f"{rate:,.0f} rewrites/s take {wanted.replicas:,} replicas, {wanted.spare:,} of them in reserve",
        f"{wanted.cores:,} cores, ${wanted.per_million:,.2f} per million",
        f"a replica serves {wanted.replica_per_s:,.1f}/s, {wanted.per_core_per_s:,.1f}/s a core",
        f"what is full first: {wanted.bound_by}",
    ]
    if measured_per_s is None or rate > measured_per_s:
        most = "nothing" if measured_per_s is None else f"{measured_per_s:,.1f}/s on one machine"
        lines.append(f"EXTRAPOLATED: {most} was measured; load balancers, network and store are not in it")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what a rate takes."""
    args = _arguments(argv)
    try:
        content = json.loads(args.costs.read_text(encoding="utf-8"))
        costs = read_costs(content)
        hit_ratio = args.hit_ratio
        if hit_ratio is None:
            hit_ratio = lru_hit_ratio(zipf_shares(args.queries, args.zipf), args.cache_entries)
        mix = Mix(hit_ratio, args.signals, args.candidates, args.beam_width)
        found = need(
            demand(costs, mix),
            rate=args.rate,
            cores=args.cores,
            utilisation=args.utilisation,
            zones=args.zones,
            price_per_core_hour=args.price,
        )
    except (OSError, KeyError, ValueError) as error:
        sys.stderr.write(f"capacity: {error!r}; `make load` writes {args.costs}\n")
        return 2
    where = f"{content.get('machine')}, at {content.get('commit')}"
    sys.stdout.write(f"{mix.hit_ratio:.1%} cache hits, costs measured on {where}\n")
    measured = max((check["measured_per_s"] for check in content.get("checks", ())), default=None)
    sys.stdout.write(f"{told(found, args.rate, measured)}\n")
    sys.stdout.write(f"price assumed: ${args.price:g} per core and hour\n")
    sys.stdout.write(f"GPU: {'; '.join(gpu_rows(RESULTS)) or 'not measured'}\n")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.capacity", description=main.__doc__)
    parser.add_argument("--rate", type=float, required=True, help="rewrites per second")
    parser.add_argument("--hit-ratio", type=float, help="of the cache; none: by the next three")
    parser.add_argument("--queries", type=int, default=1_000_000, help="distinct ones (%(default)s)")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of their popularity (%(default)s)")
    parser.add_argument("--cache-entries", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--signals", type=float, default=1.0, help="calls for each rewrite (%(default)s)")
    parser.add_argument("--candidates", type=float, default=35.0, help="of such a call (%(default)s)")
    parser.add_argument("--beam-width", type=int, default=4, help="of a generation (%(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="of a replica (%(default)s)")
    parser.add_argument("--utilisation", type=float, default=0.6, help="aimed at (%(default)s)")
    parser.add_argument("--zones", type=int, default=3, help="one may be lost; 1: one replica (%(default)s)")
    parser.add_argument(
        "--price", type=float, default=PRICE_PER_CORE_HOUR, help="per core and hour, $ (%(default)s)"
    )
    parser.add_argument("--costs", type=Path, default=RESULTS / "load" / "load.json", help="(%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
