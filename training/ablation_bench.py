"""One run of an ablation: a variant of the loop, or a rival, trained with a seed and measured as all are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from training.config import LoopConfig, Section, merged
from training.loop import Loop, measures, phase_folder
from training.policy_quality import PolicyJudge
from training.rivals import Budgets, Kind, gradient_tokens, train_rival
from training.run_loop import claim, material_of, publish_policy
from training.sampler import Draw, LocalSampler, served_rater
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
        self._threads = plan.loop.num_threads
        torch.set_num_threads(self._threads)
        runs.mkdir(parents=True, exist_ok=True)
        self._searches = read_searches(plan.loop, runs)
        relevance = served_relevance(plan.loop.relevance, threads=self._threads)
        self._judge = PolicyJudge.over(plan.loop.data_dir / "jobs", relevance)
        self._sampler = self._sampler_of(plan.loop)
        self.start = self._measured(plan.loop.checkpoint, None)
        self._incumbent: Sequence[float] = self.start.pop("rewards")

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

    def checkpoint(self, seed: int) -> Path:
        """Return the checkpoint of the loop itself with a seed; it is made where it is not there yet."""
        config = varied(self._loop, self._same, seed)
        folder = self._folder(self._same, seed)
        out = folder / "checkpoint"
        if not out.exists():
            publish_policy(config, folder, self._run(config, self._same), self._searches, out)
        return out

    def quality(self, policy: Path) -> Row:
        """Return the measures of a policy."""
        row = self._measured(policy, self._incumbent)
        del row["rewards"]
        return row

    def _measured(self, policy: Path, incumbent: Sequence[float] | None) -> Row:
        rated = self._sampler(Draw(policy, 0, "greedy"), self._searches.held_out, lambda: None)
        found = measures([one for (one,) in rated], incumbent)
        by_labels = self._judge.of_policy(policy, self._loop.sampling, threads=self._threads)
        return {"length" if name == "tokens" else name: value for name, value in found.items()} | by_labels

    def _run(self, config: LoopConfig, variant: Variant) -> Path:
        folder = self._folder(variant, config.seed)
        claim(folder, config)
        last = folder / "policy"
        if not last.exists():
            material = material_of(self._searches, self._sampler_of(config))
            Loop(config, material, folder).run().rename(last)
            for older in folder.glob("phase-*/policy"):  # hundreds of them where each step has its own
                shutil.rmtree(older)
        return last

    def _sampler_of(self, config: LoopConfig) -> LocalSampler:
        rater = served_rater(config, self._searches.corpus, self._threads)
        return LocalSampler(config.sampling, rater, threads=self._threads)

    def _folder(self, variant: Variant, seed: int) -> Path:
        return self._runs / f"{variant.group}, {variant.name}, {seed}".replace("/", " of ")


def varied(loop: LoopConfig, variant: Variant, seed: int) -> LoopConfig:
    """Return the configuration of a run.

    Raises:
        ValidationError: the changes do not fit.
    """
    changed = merged(loop.model_dump(), variant.changes)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{variant.name} {seed}")
    return LoopConfig.model_validate(changed | {"seed": seed, "name": name})


def cost_of(run_dir: Path, phases: int) -> Row:
    """Return what a finished loop took: seconds of sampling and of passes, steps, tokens learnt from."""
    folders = [phase_folder(run_dir, phase) for phase in range(1, phases + 1)]
    seconds = [json.loads(line)["seconds"] for folder in folders for line in _lines(folder / "seconds.jsonl")]
    return {
        "syncs": phases,
        "steps": sum(len(_lines(folder / "steps.jsonl")) for folder in folders),
        "seconds": round(sum(seconds), 1),
        "tokens": gradient_tokens(run_dir, phases),
    }


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()
