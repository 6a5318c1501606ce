"""`corewrite gate`, wired together: a window, evidence of two checkpoints on it, a verdict."""

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
from training.gate.verdict import Measurement, Verdict, verdict_on
from training.gate.window import Window, WindowConfig, problem_of
from training.scoring import RawrankScorer
from training.served import served_relevance


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


def run(
    candidate: Path,
    incumbent: Path,
    window: Window,
    config: WindowConfig,
    policy: Policy,
    *,
    models: Models | None = None,
) -> Findings:
    """Gather the evidence and judge it.

    Args:
        candidate: folder of the checkpoint to judge.
        incumbent: folder of the one that serves.
        window: what both answer.
        config: of the window: models and threads.
        policy: what is asked.
        models: who rates; None: the configuration's relevance model, and a judge of its own.

    Raises:
        CheckpointError, DataError: something cannot be used.
        EngineError, RelevanceError, ServingError: something does not answer.
    """
    torch.set_num_threads(config.num_threads)
    new, old = load_checkpoint(candidate), load_checkpoint(incumbent)
    folders = (candidate, incumbent)
    problems = [problem] if (problem := problem_of(new.manifest, window)) else []
    models = models or Models(
        RawrankScorer(served_relevance(config.relevance, threads=config.num_threads)), CosineScorer()
    )
    found = answer(folders, window.instances, models, config.sampling, threads=config.num_threads)
    pair = (found[0], found[1])
    measured = measure(*pair)
    try:
        measured |= distribution(folders, window.instances, pair)
    except ValueError as error:
        problems.append(str(error))
    shown = [one for task in window.tasks for one in search_task(folders, task, config.relevance)]
    if shown:
        measured["ndcg@10"] = ndcg_of(shown)
    measured |= measure_serving(candidate, incumbent)
    verdict = verdict_on(measured, policy, problems=problems)
    return Findings(new, old, window, measured, pair, shown, verdict)
