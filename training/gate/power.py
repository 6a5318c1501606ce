"""How often the gate is wrong: `python -m training.gate.power --evidence runs/gate --json OUT`.

By simulation on the evidence of a real run (`evidence.npz`): windows are drawn from its queries with
replacement, after the candidate was made as good as the incumbent in everything (A/A: what it gained is taken
from each query alike, so that they differ from one another as they did), but for a true gain of nDCG@10.

    A/A passes        wrong promotions; at most 0.05 is asked for
    A/A fails         wrong alarms
    +0.02 passes      a true gain found; at least 0.8 is asked for
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.gate.evidence import EVIDENCE, read_evidence
from training.gate.policy import DEFAULT_POLICY, Policy, read_policy
from training.gate.verdict import Measurement, verdict_on
from training.loop import write_whole

GAINS = (0.0, 0.005, 0.01, 0.02, 0.03)
WINDOWS = (350, 700, 1400)
SERVING = ("latency",)


def as_good(measured: Mapping[str, Measurement], *, goal: str, gain: float) -> dict[str, Measurement]:
    """Return evidence of a candidate as good as the incumbent on average, but for `gain` at the goal."""
    found = {}
    for name, one in measured.items():
        if name == "inflation":  # of gains that are 0
            found[name] = Measurement(one.candidate - np.nanmean(one.candidate), None)
            continue
        if one.incumbent is None or one.exact:
            found[name] = one
            continue
        shift = np.nanmean(one.candidate - one.incumbent) - (gain if name == goal else 0.0)
        found[name] = Measurement(one.candidate - shift, one.incumbent)
    return found


def drawn(
    measured: Mapping[str, Measurement], queries: int, rng: np.random.Generator
) -> dict[str, Measurement]:
    """Return a window of so many queries.

    Metrics of as many values are of the same queries, and stay together; rounds of serving are as many as
    they were.
    """
    places: dict[int, np.ndarray] = {}
    found = {}
    for name, one in measured.items():
        size = one.candidate.size
        if one.exact:
            found[name] = one
            continue
        place = places.setdefault(size, rng.integers(size, size=size if name in SERVING else queries))
        found[name] = Measurement(
            one.candidate[place], None if one.incumbent is None else one.incumbent[place]
        )
    return found


def rates(
    measured: Mapping[str, Measurement], policy: Policy, *, gain: float, queries: int, windows: int, seed: int
) -> dict[str, float]:
    """Return how often each verdict comes, over simulated windows, and which metric failed or held up most.

    Raises:
        ValueError: no goal of the policy was measured.
    """
    goal = next((name for name in policy.goal.metrics if name in measured), None)
    if goal is None:
        raise ValueError(f"the evidence has none of the goals {', '.join(policy.goal.metrics)}")
    given, rng = as_good(measured, goal=goal, gain=gain), np.random.default_rng(seed)
    count: Counter[str] = Counter()
    for number in tqdm(range(windows), desc=f"gain {gain}, {queries} queries", leave=False):
        seeded = policy.model_copy(update={"seed": policy.seed + number})
        verdict = verdict_on(drawn(given, queries, rng), seeded)
        count[verdict.state.name] += 1
        count.update({f"held up by {one.metric}": 1 for one in verdict.decisions if one.state.name != "PASS"})
    return {name: times / windows for name, times in sorted(count.items())}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate; print and keep a row for each gain and window."""
    parser = argparse.ArgumentParser(
        prog="python -m training.gate.power", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--evidence", type=Path, required=True, help="folder of `corewrite gate --out`")
    parser.add_argument("--policy", type=Path, default=DEFAULT_POLICY)
    parser.add_argument("--windows", type=int, default=1000, help="simulated for each row (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    policy, measured = read_policy(args.policy), read_evidence(args.evidence / EVIDENCE)
    rows = []
    for queries in WINDOWS:
        for gain in GAINS:
            found = rates(measured, policy, gain=gain, queries=queries, windows=args.windows, seed=1)
            rows.append({"gain": gain, "queries": queries, **found})
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            if args.json is not None:  # at once: all rows take half an hour
                write_whole(args.json, json.dumps({"windows": args.windows, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
