"""What each choice of the loop is worth: `python -m training.ablations` (`make ablations`).

`training/configs/ablations.toml` has the loop, and variants that change it in one respect; each is run with
every seed on one log of simulated searches, and all are measured alike: the reward of first choices on
queries kept apart, by the terms of the unchanged loop, and nDCG@10 on validation titles
(`training.policy_quality`). GRPO and online DPO get the wall-clock, and the tokens, that the loop took.

Rows that the output has are kept, and a loop that was interrupted goes on: the whole takes hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from tqdm import tqdm

from training.ablations_plot import draw_ablations, table
from training.config import LoopConfig, Section, read_config
from training.loop import Loop, Material, measures
from training.policy_quality import PolicyJudge
from training.reproduce import commit, machine
from training.rivals import Budgets, Kind, gradient_tokens, train_rival
from training.rollout import LocalRollout, served_rater
from training.run_loop import claim
from training.searches import read_searches
from training.served import served_relevance

Row = dict[str, Any]


class Variant(Section):
    """What differs from the loop: something in its configuration, or a rival in its place."""

    group: str = Field(description="the question it belongs to")
    name: str
    rival: Kind | None = None
    changes: dict[str, Any] = Field(default={}, description="merged into the loop's configuration")


class Plan(Section):
    """All that is run. The first variant is the loop itself: it changes nothing."""

    seeds: tuple[int, ...] = Field(min_length=1)
    loop: LoopConfig
    variants: tuple[Variant, ...] = Field(min_length=1)


class Bench:
    """What all variants are run on, and how they are measured. `runs` is the folder of the runs."""

    def __init__(self, plan: Plan, runs: Path) -> None:
        self._loop, self._same = plan.loop, plan.variants[0]
        self._runs = runs
        self._threads = plan.loop.threads or os.cpu_count() or 1
        torch.set_num_threads(self._threads)
        runs.mkdir(parents=True, exist_ok=True)
        self._searches = read_searches(plan.loop, runs)
        relevance = served_relevance(plan.loop.relevance, threads=self._threads)
        self._judge = PolicyJudge.over(plan.loop.data_dir / "jobs", relevance)
        self._rollout = self._rollout_of(plan.loop)
        self._start: Sequence[float] | None = None
        self.start = self._quality(plan.loop.checkpoint)
        self._start = self.start.pop("rewards")

    def rows(self, variant: Variant, seed: int) -> Iterator[Row]:
        """Run a variant with a seed and measure it: one row, or for a rival one for each budget."""
        config = varied(self._loop, variant, seed)
        known: Row = {"group": variant.group, "variant": variant.name, "seed": seed}
        if variant.rival is None:
            policy = self._run(config, variant)
            yield known | cost_of(self._folder(variant, seed), config.phases) | self.quality(policy)
            return
        self._run(varied(self._loop, self._same, seed), self._same)
        cost = cost_of(self._folder(self._same, seed), self._loop.phases)
        found = train_rival(
            variant.rival,
            config,
            self._searches.learning,
            served_rater(config, self._searches.corpus, self._threads),
            self._folder(variant, seed),
            budgets=Budgets(cost["seconds"], cost["tokens"]),
        )
        for end in found:
            own = {"variant": f"{variant.name}, equal {end.budget}", "syncs": end.steps, "steps": end.steps}
            spent = {"seconds": round(end.seconds, 1), "tokens": end.tokens}
            yield known | own | spent | self.quality(end.folder)

    def quality(self, policy: Path) -> Row:
        """Return the measures of a policy."""
        row = self._quality(policy)
        del row["rewards"]
        return row

    def _quality(self, policy: Path) -> Row:
        held_out = self._searches.held_out
        rated = self._rollout(policy, held_out, seed=0, mode="greedy", done=lambda: None)
        found = measures([one for (one,) in rated], self._start)
        by_labels = self._judge.of_policy(policy, self._loop.sampling, threads=self._threads)
        return {"length" if name == "tokens" else name: value for name, value in found.items()} | by_labels

    def _run(self, config: LoopConfig, variant: Variant) -> Path:
        folder = self._folder(variant, config.seed)
        claim(folder, config)
        last = folder / f"phase-{config.phases:02d}" / "policy"
        if last.exists():
            return last
        found, rollout = self._searches, self._rollout_of(config)
        material = Material(found.learning, found.held_out, rollout, found.unclicked)
        policy = Loop(config, material, folder).run()
        for older in folder.glob("phase-*/policy"):  # hundreds of them where each step has its own
            if older != policy:
                shutil.rmtree(older)
        return policy

    def _rollout_of(self, config: LoopConfig) -> LocalRollout:
        rater = served_rater(config, self._searches.corpus, self._threads)
        return LocalRollout(config.sampling, rater, threads=self._threads)

    def _folder(self, variant: Variant, seed: int) -> Path:
        return self._runs / f"{variant.group}, {variant.name}, {seed}".replace("/", " of ")


def varied(loop: LoopConfig, variant: Variant, seed: int) -> LoopConfig:
    """Return the configuration of a run.

    Raises:
        ValidationError: the changes do not fit.
    """
    changed = merged(loop.model_dump(), variant.changes)
    return LoopConfig.model_validate(changed | {"seed": seed, "name": variant.name})


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` with `changes`, tables within tables too."""
    inner = {
        name: merged(table[name], value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return {**table, **inner}


def cost_of(run_dir: Path, phases: int) -> Row:
    """Return what a finished loop took: seconds of rollouts and passes, steps, tokens learnt from."""
    folders = [run_dir / f"phase-{phase:02d}" for phase in range(1, phases + 1)]
    seconds = [json.loads(line)["seconds"] for folder in folders for line in _lines(folder / "seconds.jsonl")]
    return {
        "syncs": phases,
        "steps": sum(len(_lines(folder / "steps.jsonl")) for folder in folders),
        "seconds": round(sum(seconds), 1),
        "tokens": gradient_tokens(run_dir, phases),
    }


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def main(argv: Sequence[str] | None = None) -> int:
    """Run and measure what the output lacks, seed by seed, and draw it."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablations", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("training/configs/ablations.toml"))
    parser.add_argument("--out", type=Path, default=Path("results/ablations.json"))
    parser.add_argument("--plots", type=Path, default=Path("docs/plots"))
    parser.add_argument("--table", type=Path, default=Path("docs/ablations.md"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--groups", nargs="*", metavar="G", help="only these (all)")
    args = parser.parse_args(argv)
    plan = read_config(args.config, Plan)
    record = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"rows": []}
    rows: list[Row] = record["rows"]
    done = {(row["group"], row["variant"].partition(", equal")[0], row["seed"]) for row in rows}
    wanted = [variant for variant in plan.variants if not args.groups or variant.group in args.groups]
    todo = [
        (variant, seed)
        for seed in plan.seeds
        for variant in wanted
        if (variant.group, variant.name, seed) not in done
    ]
    if todo:
        bench = Bench(plan, args.runs)
        for variant, seed in tqdm(todo, unit="run"):
            rows += [row | {"commit": commit()} for row in bench.rows(variant, seed)]
            record = {"machine": machine(), "start": bench.start, "rows": rows}
            args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw_ablations(record, args.plots)
    if record["rows"]:
        args.table.write_text(table(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
