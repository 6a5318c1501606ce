"""Semi-online Mixed Preference Optimization: `corewrite train loop` (CoRe, arXiv 2606.14127).

In each phase the sampler gets the policy's weights once and draws from it; the deployed relevance model rates
what it drew; the best and the worst of an instance become pairs; the policy of the phase's start is the
frozen reference; one pass over the pairs makes the next policy, which is measured on queries kept apart.

Every step leaves a file in the folder of its phase, put there whole when it is done: a loop that was killed
goes on after the last one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Literal

from tqdm import tqdm

from app.engines.text import read_tokenizer
from training.anchors import draw_anchors
from training.config import LoopConfig, PairConfig
from training.datasets.instances import Instance, Search
from training.datasets.ubi_context import query_attributes
from training.mpo import PairIds
from training.mpo_phase import PhaseError, train_phase
from training.pairs import Rated, pairs_of
from training.rating import RatedCompletion
from training.sampler import Draw, Sampler
from training.sampling import prompt_ids

MEASURES = "measures.json"


@dataclass(frozen=True, slots=True)
class Material:
    """What a loop works on.

    Args:
        learning, held_out: instances to learn from, and those that only measure.
        sampler: draws completions for them, and says what they are worth.
        unclicked: searches to anchor the policy on; without any it is free.
    """

    learning: Sequence[Instance]
    held_out: Sequence[Instance]
    sampler: Sampler
    unclicked: Sequence[Search] = ()


class Loop:
    """The phases of one run in `run_dir`."""

    def __init__(self, config: LoopConfig, material: Material, run_dir: Path) -> None:
        self._config = config
        self._material = material
        self._run_dir = run_dir

    def run(self) -> Path:
        """Go through the phases that are not done; return the folder of the last policy.

        A phase that has no pairs leaves the policy as it was.

        Raises:
            PhaseError: a pass failed, or no phase has pairs.
            CorewriteError: the engine or the relevance model cannot answer.
        """
        policy = self._config.checkpoint
        self._measure(0, policy)
        for phase in range(1, self._config.phases + 1):
            policy = self._phase(phase, policy)
        if policy == self._config.checkpoint:
            raise PhaseError(
                f"{self._run_dir}: no phase has pairs: every instance was a tie, or the floor holds all that "
                "was drawn; drawn.jsonl has the rewards"
            )
        return policy

    def _phase(self, phase: int, policy: Path) -> Path:
        folder = phase_folder(self._run_dir, phase)
        folder.mkdir(parents=True, exist_ok=True)
        pairs, steps, trained = folder / "pairs.jsonl", folder / "steps.jsonl", folder / "policy"
        if not pairs.exists():
            instances = self._instances(phase)
            with _timed(folder, "sampling"):
                rated = self._rated(policy, instances, phase, "sample")
            _write_lines(folder / "drawn.jsonl", map(_drawn, instances, rated))
            ids = pairs_in(policy, self._config.pairs, instances, rated)
            _write_lines(pairs, [*map(asdict, ids), *self._anchors(phase, len(ids))])
        if not pairs.stat().st_size:
            write_whole(steps, "")
            self._measure(phase, policy)
            return policy
        if not trained.exists():
            seed = self._config.seed + phase
            span = ((phase - 1) / self._config.phases, phase / self._config.phases)
            with _timed(folder, "pass"):
                train_phase(policy, pairs, self._config.mpo, trained, seed=seed, steps_file=steps, span=span)
        self._measure(phase, trained)
        return trained

    def _instances(self, phase: int) -> list[Instance]:
        """The phase's share of the log: each query once before any comes again."""
        learning, count = self._material.learning, self._config.instances
        start = (phase - 1) * count
        rounds = range(start // len(learning), (start + count - 1) // len(learning) + 1)
        order = [
            place
            for number in rounds
            for place in Random(f"{self._config.seed} {number}").sample(range(len(learning)), len(learning))
        ]
        skipped = start - rounds[0] * len(learning)
        return [learning[place] for place in order[skipped : skipped + count]]

    def _rated(
        self, policy: Path, instances: Sequence[Instance], phase: int, mode: Literal["sample", "greedy"]
    ) -> list[list[RatedCompletion]]:
        draw = Draw(policy, self._config.seed + phase, mode)
        with tqdm(total=len(instances), unit="query", desc=f"phase {phase}, {mode}") as bar:
            return self._material.sampler(draw, instances, bar.update)

    def _anchors(self, phase: int, pairs: int) -> list[dict[str, Any]]:
        """The phase's share of anchors, which are drawn once for the whole loop."""
        count = round(self._config.pairs.anchors * pairs)
        if not (count and self._material.unclicked):
            return []
        file = self._run_dir / "anchors.jsonl"
        if not file.exists():
            searches, config = self._material.unclicked, self._config
            with tqdm(total=len(searches), unit="query", desc="anchors") as bar:
                drawn = draw_anchors(
                    config.checkpoint, searches, config.sampling, threads=config.num_threads, done=bar.update
                )
            _write_lines(file, map(asdict, drawn))
        anchors = file.read_text(encoding="utf-8").splitlines()
        chosen = Random(f"{self._config.seed} {phase}").sample(range(len(anchors)), min(count, len(anchors)))
        return [json.loads(anchors[place]) for place in chosen]

    def _measure(self, phase: int, policy: Path) -> None:
        file = phase_folder(self._run_dir, phase) / MEASURES
        if file.exists() or (phase % self._config.measure_every and phase < self._config.phases):
            return
        rated = [one for (one,) in self._rated(policy, self._material.held_out, phase, "greedy")]
        incumbent = phase_folder(self._run_dir, 0) / MEASURES
        before = json.loads(incumbent.read_text(encoding="utf-8"))["rewards"] if incumbent.exists() else None
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(measures(rated, before), indent=1) + "\n")


def phase_folder(run_dir: Path, phase: int) -> Path:
    """Where a phase of a run leaves its files; phase 0 has the incumbent's measures alone."""
    return run_dir / f"phase-{phase:02d}"


def measured_phases(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Return what `measures` found, by phase, as far as a run has come; phase 0 is the incumbent."""
    files = sorted(run_dir.glob(f"phase-*/{MEASURES}"), key=_phase_of)
    return {_phase_of(file): json.loads(file.read_text(encoding="utf-8")) for file in files}


def _phase_of(file: Path) -> int:
    return int(file.parent.name.removeprefix("phase-"))


@contextmanager
def _timed(folder: Path, step: str) -> Iterator[None]:
    """Note in `seconds.jsonl` how long a step took; a killed one leaves no line."""
    start = perf_counter()
    yield
    with (folder / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "seconds": round(perf_counter() - start, 3)}) + "\n")


def pairs_in(
    policy: Path,
    config: PairConfig,
    instances: Sequence[Instance],
    rated: Sequence[Sequence[RatedCompletion]],
) -> list[PairIds]:
    """Return the pairs of each instance's completions, which `policy` drew, as token ids."""
    tokenizer, _ = read_tokenizer(policy)
    found = []
    for instance, completions in zip(instances, rated, strict=True):
        prompt = prompt_ids(tokenizer, instance)
        plain = [Rated(one.completion.text.strip(), one.reward, one.floored) for one in completions]
        for pair in pairs_of(plain, k=config.k, tie=config.tie):
            chosen, rejected = (completions[n].completion for n in (pair.chosen, pair.rejected))
            found.append(
                PairIds(
                    prompt,
                    list(chosen.token_ids),
                    list(rejected.token_ids),
                    chosen.logprob,
                    rejected.logprob,
                    pair.margin,
                )
            )
    return found


def measures(rated: Sequence[RatedCompletion], incumbent: Sequence[float] | None) -> dict[str, Any]:
    """Return means over the first choices for held-out queries.

    `improved` is the share whose reward beats the incumbent's for the same query; it needs the incumbent's
    rewards, in the same order.
    """
    free = [one for one in rated if not one.floored]
    rewards = [round(one.reward, 4) for one in rated]
    found: dict[str, Any] = {
        "queries": len(rated),
        "reward": _mean([one.terms.ranking - one.terms.length - one.terms.truncation for one in free]),
        "floored": _mean([float(one.floored) for one in rated]),
        "tokens": _mean([float(len(one.completion.token_ids)) for one in rated]),
        "s_pos": _mean([one.evidence.s_pos for one in free]),
        "s_neg": _mean([one.evidence.s_neg for one in free if one.evidence.s_neg is not None]),
        "s_rand": _mean([one.evidence.s_rand for one in free if one.evidence.s_rand is not None]),
    }
    if incumbent is not None:
        changes = [one - before for one, before in zip(rewards, incumbent, strict=True)]
        found["improved"] = _mean([float(change > 0) for change in changes])
        found["worsened"] = _mean([float(change < 0) for change in changes])
    found["rewards"] = rewards
    return found


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _drawn(instance: Instance, rated: Sequence[RatedCompletion]) -> dict[str, Any]:
    return {
        "query": instance.query,
        **query_attributes(instance.context),
        "completions": [
            {
                "text": one.completion.text,
                "logprob": round(one.completion.logprob, 4),
                "reward": round(one.reward, 4),
                **{name: value for name, value in asdict(one.terms).items() if name != "total"},
                **asdict(one.evidence),
            }
            for one in rated
        ],
    }


def _write_lines(path: Path, records: Any) -> None:
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
