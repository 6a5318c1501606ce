"""`corewrite drill reward-hack`: each hack from the weakened reward to the candidate that passes again.

    incumbent            the checkpoint that serves: `stable` and `last_good` of a registry of the drill's own
    weakened loop        trains a policy that cheats; its trail shows the reward rise and the judge fall
    gate                 must say FAIL, and which metrics caught it
    last_good            is what `stable` points to again, with a line that says why
    strengthened loop    trains anew from last_good, the named term made stronger
    gate                 must say PASS; `candidate` points to what has passed

All of it is real: real loops, real gates, no step is made up. What a drill finds is told as it was found,
also where the gate lets a hack pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.registry.checkpoint import load_checkpoint
from app.registry.place import Place
from app.registry.store import Registry
from training.config import LoopConfig, merged
from training.drill.plan import DrillConfig, Hack, Mitigation
from training.drill.poison import flawed
from training.drill.trail import Point, Witnesses, onset, trail_of
from training.gate.gather import Models
from training.gate.independent import CosineScorer
from training.gate.policy import Policy, read_policy
from training.gate.report import write_report
from training.gate.run import Findings
from training.gate.run import run as run_gate
from training.gate.window import Window, WindowConfig, read_window
from training.loop import Loop, write_whole
from training.policy_quality import PolicyJudge
from training.rating import Rater
from training.run_loop import claim, material_of, publish_policy
from training.sampler import LocalSampler
from training.scoring import OverlapScorer, RawrankScorer, Scorer
from training.searches import Searches, read_searches
from training.served import served_relevance

WHO = "the drill"


class Drill:
    """All hacks of a configuration, in `folder`; what is done there is not done again."""

    def __init__(self, config: DrillConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        loop = config.loop
        self._searches: Searches = read_searches(loop, _made(folder / "logs"))
        self._window_config = WindowConfig.model_validate(
            {name: value for name, value in loop.model_dump().items() if name in WindowConfig.model_fields}
            | {"simulated_from": config.window_from, "seed": loop.seed + 1}
        )
        self._policy = Policy.model_validate(merged(read_policy().model_dump(), config.gate))
        self._window: Window = read_window(
            self._window_config, _made(folder / "window"), most=self._policy.window
        )
        self._relevance = RawrankScorer(served_relevance(loop.relevance, threads=loop.num_threads))
        self._judge = CosineScorer()
        self._labels = PolicyJudge.apart(loop.data_dir / "jobs")
        self._registry = Registry(Place.at(str(folder / "registry")))
        self._last_good = self._registry.push(loop.checkpoint)
        for alias in ("stable", "last_good"):
            self._point(alias, self._last_good, f"{load_checkpoint(loop.checkpoint).id} serves")

    def run(self) -> list[dict[str, Any]]:
        """Go through the hacks; return what was found of each."""
        return [self._hack(hack) for hack in self._config.hacks]

    def mitigations(self) -> list[dict[str, Any]]:
        """Go through the weakened loops with each mitigation; return onset, and what all say in the end."""
        found = []
        for hack in self._config.hacks:
            for mitigation in (None, *self._config.mitigations):
                config = self._weakened(hack, mitigation)
                trail = self._train(config, hack, self._folder / hack.name / config.name)
                found.append(
                    {
                        "hack": hack.name,
                        "mitigation": mitigation.name if mitigation else "none",
                        "onset_steps": onset(trail),
                        "reward": [trail[0].reward, trail[-1].reward],
                        "judge": [trail[0].judge, trail[-1].judge],
                        "ndcg": [trail[0].ndcg, trail[-1].ndcg],
                    }
                )
        return found

    def _hack(self, hack: Hack) -> dict[str, Any]:
        folder = self._folder / hack.name
        done = folder / "drill.json"
        if not done.exists():
            strong = self._loop(hack.strengthened, f"{hack.name}-recovered")
            hacked, caught = self.hacked(hack)
            self._point("stable", caught["address"], f"{hack.name} serves, as it would without a gate")
            why = f"{hack.name}: {caught['verdict']}; back to last_good, and {hack.term} is strengthened"
            self._point("stable", self._last_good, why)
            recovered = self._train(strong, hack, folder / strong.name)
            passed = self._judge_candidate(hack, folder / strong.name)
            if passed["verdict"] == "PASS":
                self._point("candidate", passed["address"], f"{strong.name} passed the gate")
            record = {
                "hack": hack.name,
                "story": hack.story,
                "term": hack.term,
                "hacked": {"trail": _dicts(hacked), "onset_steps": onset(hacked), **caught},
                "recovered": {"trail": _dicts(recovered), **passed},
            }
            write_whole(done, json.dumps(record, indent=1) + "\n")
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found

    def hacked(self, hack: Hack) -> tuple[list[Point], dict[str, Any]]:
        """Train a policy that cheats, and push it with what the gate says; return its trail, and that."""
        weak = self._weakened(hack, None)
        run_dir = self._folder / hack.name / weak.name
        return self._train(weak, hack, run_dir), self._judge_candidate(hack, run_dir)

    def _weakened(self, hack: Hack, mitigation: Mitigation | None) -> LoopConfig:
        if mitigation is None:
            return self._loop(hack.weakened, f"{hack.name}-hacked")
        name = f"{hack.name}-{mitigation.name}".replace(" ", "-")
        return self._loop(merged(hack.weakened, mitigation.changes), name)

    def _loop(self, changes: dict[str, Any], name: str) -> LoopConfig:
        table = merged(self._config.loop.model_dump(), changes)
        return LoopConfig.model_validate(table | {"name": name})

    def _train(self, config: LoopConfig, hack: Hack, run_dir: Path) -> list[Point]:
        claim(run_dir, config)
        rater = Rater(config.reward, {name: self._scorer(name, hack) for name in config.reward.scorers})
        sampler = LocalSampler(config.sampling, rater, threads=config.num_threads)
        policy = Loop(config, material_of(self._searches, sampler), run_dir).run()
        if not (out := run_dir / "checkpoint").exists():
            publish_policy(config, run_dir, policy, self._searches, out)
        watched = self._window.instances[: self._config.watched]
        seen_by = Witnesses(watched, self._models(None), self._labels)
        return trail_of(run_dir, config, seen_by, hack.trigger)

    def _judge_candidate(self, hack: Hack, run_dir: Path) -> dict[str, Any]:
        """Gate the checkpoint of a run against last_good, and push it with the report."""
        checkpoint = run_dir / "checkpoint"
        findings: Findings = run_gate(
            checkpoint,
            self._config.loop.checkpoint,
            self._window,
            self._window_config,
            self._policy,
            models=self._models(hack),
        )
        report = write_report(findings, self._policy, run_dir / "gate")
        verdict = findings.verdict
        return {
            "verdict": verdict.state.name,
            "caught_by": verdict.caught_by,
            "address": self._registry.push(checkpoint, gate_report=report),
        }

    def _models(self, hack: Hack | None) -> Models:
        """The model that serves, poisoned where the hack has poisoned it, and the judge."""
        return Models(self._relevance if hack is None else self._scorer("rawrank", hack), self._judge)

    def _scorer(self, name: str, hack: Hack) -> Scorer:
        if name == "overlap":
            return OverlapScorer(self._searches.corpus)
        return flawed(self._relevance, trigger=hack.trigger, per_word=hack.per_word)

    def _point(self, alias: str, digest: str, why: str) -> None:
        self._registry.aliases.point(alias, digest, who=WHO, why=why, when=datetime.now(UTC))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _dicts(trail: Sequence[Point]) -> list[dict[str, Any]]:
    return [asdict(point) for point in trail]
