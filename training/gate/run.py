"""`corewrite gate`, wired together: window, evidence, verdict, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from app.registry.checkpoint import Checkpoint, load_checkpoint
from training.gate.gather import Answers, Models, answer, distribution, measure
from training.gate.independent import CosineScorer
from training.gate.labelled import Shown, ndcg_of, search_task
from training.gate.policy import Policy
from training.gate.serving import measure_serving
from training.gate.verdict import Measurement, Verdict, judge
from training.gate.window import Window, WindowConfig, problem_of, read_window


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the report tells.

    Args:
        candidate, incumbent: what was compared.
        window: on what.
        measured: the evidence, by metric.
        answers: candidate's and incumbent's, in the order of the window's instances.
        shown: labelled queries.
        verdict: what came of it.
    """

    candidate: Checkpoint
    incumbent: Checkpoint
    window: Window
    measured: Mapping[str, Measurement]
    answers: tuple[Answers, Answers]
    shown: Sequence[Shown]
    verdict: Verdict


def run(candidate: Path, incumbent: Path, config: WindowConfig, policy: Policy, folder: Path) -> Findings:
    """Gather the evidence and judge.

    Args:
        candidate: folder of the checkpoint to judge.
        incumbent: folder of the one that serves.
        config: the window.
        policy: what is asked.
        folder: for what is simulated.

    Raises:
        CheckpointError, DataError: something cannot be used.
        EngineError, RelevanceError, ServingError: something does not answer.
    """
    torch.set_num_threads(config.num_threads)
    new, old = load_checkpoint(candidate), load_checkpoint(incumbent)
    window = read_window(config, folder, most=policy.window)
    problems = [problem] if (problem := problem_of(new.manifest, window)) else []
    models = Models(config.relevance, CosineScorer())
    found = answer(
        (candidate, incumbent), window.instances, models, config.sampling, threads=config.num_threads
    )
    pair = (found[0], found[1])
    measured = measure(*pair)
    try:
        measured |= distribution((candidate, incumbent), window.instances, pair)
    except ValueError as error:
        problems.append(str(error))
    shown = [
        one for task in window.tasks for one in search_task((candidate, incumbent), task, config.relevance)
    ]
    if shown:
        measured["ndcg@10"] = ndcg_of(shown)
    measured |= measure_serving(candidate, incumbent)
    return Findings(new, old, window, measured, pair, shown, judge(measured, policy, problems=problems))
