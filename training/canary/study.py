"""How often the judge of rollouts is wrong, and how soon it is right: `python -m training.canary.study`.

Each run is a rollout of `app/rollout/launch.toml` with the time taken out of it: a checkpoint whose true
effect is known, clients of `training.canary.crowd`, a look after every few thousand searches. All judges see
the same numbers, and each goes its own way. The sequences are tried once more where the clients have searched
before the rollout, so that what they are like is known and taken out of it (CUPED): on numbers of their own,
for a past takes draws too. It goes on where it was stopped.

    same        nothing changes: each rollback and each promotion is false
    -2, ...     so much less relative success: fewer queries that need no change, fewer strict clicks
    +1, +3      so much more
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.rollout import LAUNCH
from app.rollout.assignment import BUCKETS, Split
from app.rollout.evidence import CANARY, MEASURES, Period
from app.rollout.plan import Plan, read_plan
from training.canary.crowd import RATES, Crowd
from training.canary.judges import Judge, MannWhitney, Sequential, ZTest
from training.canary.page import draw, page, summary
from training.loop import write_whole

SEARCHES = 5_000
MOST_LOOKS = 400
HORIZON = 100_000.0
PAST_SEARCHES = 1_000_000.0
"""As many as the longest rollout's half, where a past is known."""
WITH_A_PAST = "confidence sequences, the past known"
JUDGES: Mapping[str, Callable[[], Judge]] = {
    "confidence sequences": Sequential,
    WITH_A_PAST: Sequential,
    "z-test at each look": ZTest,
    "z-test at the horizon": partial(ZTest, HORIZON),
    "Mann-Whitney": MannWhitney,
}
SUCCESS = {"same": 0.0, "-2 %": -0.02, "-5 %": -0.05, "-10 %": -0.10, "+1 %": 0.01, "+3 %": 0.03}


@dataclass(frozen=True, slots=True)
class End:
    """How a rollout ended.

    Args:
        action: promoted, rolled back, or neither within MOST_LOOKS.
        searches: of everybody until then.
        exposed: those of the canary's clients.
    """

    action: str
    searches: float
    exposed: float


def effects_of(success: float) -> dict[str, float]:
    """Return what metrics are multiplied by: more strict clicks, and more queries that are not changed."""
    changed = RATES["changed"]
    return {"changed": (1 - (1 - changed) * (1 + success)) / changed, "strict": 1 + success}


def simulate(
    plan: Plan, success: float, make_judge: Callable[[], Judge], seed: int, *, past: float = 0.0
) -> End:
    """Return how one rollout ends; `past` is how many searches before it are known."""
    crowd, judge = Crowd(np.random.default_rng(seed), SEARCHES), make_judge()
    effects, step, everybody = effects_of(success), 0, 0.0
    periods = [_period(plan, step, seed)]
    if past:
        periods = [replace(periods[0], before=crowd.between_looks(periods[0], 0, {}, times=past / SEARCHES))]
    for look in range(MOST_LOOKS):
        found = crowd.between_looks(periods[-1], look, effects)
        everybody += float(found[:, 0].sum())
        periods[-1].sums["all"] += found
        action = judge.look(plan, periods, step)
        exposed = sum(period.searches(CANARY) for period in periods)
        if action == "rollback":
            return End("rolled back", everybody, exposed)
        if action == "promote":
            step += 1
            if step == len(plan.steps) - 1:
                return End("promoted", everybody, exposed)
            periods.append(replace(_period(plan, step, seed), before=periods[0].before))
    return End("neither", everybody, sum(period.searches(CANARY) for period in periods))


def _period(plan: Plan, step: int, seed: int) -> Period:
    split = Split("study", 0.0, f"run {seed}", plan.steps[step].ratio)
    nothing = np.zeros((BUCKETS, len(MEASURES)))
    return Period(split, {"all": nothing, "impacted": nothing})


def _run(plan: Plan, success: str, judge: str, seed: int) -> dict[str, object]:
    past = PAST_SEARCHES if judge == WITH_A_PAST else 0.0
    return asdict(simulate(plan, SUCCESS[success], JUDGES[judge], seed, past=past))


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, and write canary.json, canary.png and README.md."""
    parser = argparse.ArgumentParser(
        prog="python -m training.canary.study", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=400, help="rollouts of each kind (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs/canary"), help="of every end (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("results/canary"), help="(%(default)s)")
    args = parser.parse_args(argv)
    plan = read_plan(LAUNCH.read_text(encoding="utf-8"))
    for folder in (args.run_dir, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    file = args.run_dir / "ends.json"
    found: dict[str, list[dict[str, object]]] = json.loads(file.read_text()) if file.exists() else {}
    cells = [(success, judge) for success in SUCCESS for judge in JUDGES]
    with ProcessPoolExecutor(args.processes) as pool:
        for success, judge in tqdm(cells, unit="kind"):
            key = f"{success} | {judge}"
            if len(found.get(key, ())) < args.runs:
                work = partial(_run, plan, success, judge)
                found[key] = list(pool.map(work, range(args.runs), chunksize=4))
                write_whole(file, json.dumps(found, indent=1) + "\n")
    found = {key: found[key] for key in (f"{success} | {judge}" for success, judge in cells)}
    draw(found, args.out / "canary.png")
    rows = summary(found)
    write_whole(args.out / "canary.json", json.dumps(rows, indent=1) + "\n")
    told = page(rows)
    write_whole(args.out / "README.md", told)
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
