"""Fitting the confidence of a checkpoint on what it was not trained on, phrases of the catalogue aside.

Those are the ones that it was trained on, misspelt anew, so of spelling it seems a little surer than it
should be; rare phrases, which it was not trained on, are among the probes against that.

Probes are queries with the answers that would be right: held-out titles of known occupations, titles of
occupations hidden whole, canonical ones too (no answer is right), misspelt and clean product phrases, rare
ones included, and follow-ups and conversations kept apart. Each completion of the beam is one observation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.contracts.confidence import KINDS, Calibration, Kind, Platt, features, kind_of
from app.contracts.prompt import NO_CONTEXT, Context, render
from app.engines.base import Completion, Engine, GenerationRequest
from training.datasets.conversations import read_turns
from training.datasets.followups import Catalogue, FollowUps, read_items
from training.datasets.jobs import read_jobs
from training.datasets.spelling import ProductPhrases
from training.datasets.typos import one_typo

PROBE_SEED = 4242
PHRASE_PROBES = 700
FOLLOW_UP_PROBES = 800
L2 = 1e-2
NUM_COMPLETIONS = 4
MAX_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """A query with its right rewrites, case-folded; none: whatever is written is wrong."""

    query: str
    right: frozenset[str]
    source: str
    context: Context = NO_CONTEXT


@dataclass(frozen=True, slots=True)
class Observation:
    """One completion of a probe: what the calibration sees of it, and whether it was right."""

    kind: Kind
    values: tuple[float, float, float]
    right: bool
    source: str
    first: bool


def make_probes(data_dir: Path) -> list[Probe]:
    """Make the probes of all kinds; deterministic."""
    rng = Random(PROBE_SEED)
    jobs = read_jobs(data_dir / "jobs")
    probes = [Probe(t.title, _folded(jobs.canonical[t.onet_code]), "seen") for t in jobs.seen]
    probes += [Probe(t.title, frozenset(), "unseen") for t in jobs.unseen]
    probes += [Probe(title, frozenset(), "unseen, canonical") for title in jobs.hidden.values()]
    phrases = ProductPhrases(data_dir / "products")
    for _ in range(PHRASE_PROBES):
        for source, phrase in (("phrase", phrases.draw(rng).target), ("rare phrase", phrases.rare(rng))):
            probes.append(Probe(phrase, frozenset(), source))
            probes.append(Probe(one_typo(phrase, rng), _folded(phrase), f"misspelt {source}"))
    follow_ups = FollowUps(Catalogue(read_items(data_dir / "fashion" / "items.jsonl")), side="validation")
    for _ in range(FOLLOW_UP_PROBES):
        example = follow_ups.draw(rng)
        probes.append(Probe(example.query, _folded(example.target), "follow-up", example.context))
    for turn in read_turns(data_dir / "context" / "train.jsonl"):
        if turn.validation and turn.previous:
            probes.append(Probe(turn.query, _folded(*turn.rewrites), "conversation", turn.context))
    return probes


async def observe(engine: Engine, probes: Sequence[Probe]) -> list[Observation]:
    """Complete every probe as the service would; copies are left out, for the guard drops them."""

    async def one(probe: Probe) -> list[Observation]:
        request = GenerationRequest(
            prompt=render(probe.query, probe.context),
            num_completions=NUM_COMPLETIONS,
            max_tokens=MAX_TOKENS,
        )
        generation = await engine.generate(request)
        return [
            _observed(probe, generation.completions, place)
            for place, completion in enumerate(generation.completions)
            if completion.text.strip().casefold() != probe.query.strip().casefold()
        ]

    found: list[Observation] = []
    for start in range(0, len(probes), 64):
        for observations in await asyncio.gather(*map(one, probes[start : start + 64])):
            found += observations
    return found


def fit(observations: Sequence[Observation], threshold: float) -> Calibration:
    """Fit one logistic model a kind: maximum likelihood with a small L2 penalty on the weights.

    Raises:
        ValueError: a kind has no right or no wrong observation: nothing can be learnt about it.
    """
    return Calibration(
        threshold, {kind: _fit_kind([o for o in observations if o.kind == kind], kind) for kind in KINDS}
    )


def cross_fitted(observations: Sequence[Observation], folds: int = 5) -> NDArray[np.float64]:
    """Return for each observation a confidence fitted without its fold: for the reliability plot."""
    places = np.array([Random(f"{PROBE_SEED}/{n}").randrange(folds) for n in range(len(observations))])
    confidences = np.zeros(len(observations))
    for fold in range(folds):
        rest = [o for o, place in zip(observations, places, strict=True) if place != fold]
        kinds = fit(rest, threshold=0.0).kinds
        for number, observation in enumerate(observations):
            if places[number] == fold:
                confidences[number] = kinds[observation.kind].probability(observation.values)
    return confidences


def _fit_kind(observations: Sequence[Observation], kind: Kind) -> Platt:
    x = np.array([observation.values for observation in observations])
    y = np.array([observation.right for observation in observations], dtype=float)
    if len(set(y)) < 2:  # noqa: PLR2004
        raise ValueError(f"{kind}: needs right and wrong observations, has {len(y)} that are all alike")

    def loss(theta: NDArray[np.float64]) -> float:
        logits = theta[0] + x @ theta[1:]
        return float(np.mean(np.logaddexp(0.0, logits) - y * logits) + L2 * theta[1:] @ theta[1:] / len(y))

    theta = minimize(loss, np.zeros(4), method="BFGS").x
    return Platt(float(theta[0]), (float(theta[1]), float(theta[2]), float(theta[3])))


def _observed(probe: Probe, completions: tuple[Completion, ...], place: int) -> Observation:
    text = completions[place].text.strip()
    return Observation(
        kind=kind_of(probe.query, text, probe.context),
        values=features(completions, place),
        right=text.casefold() in probe.right,
        source=probe.source,
        first=place == 0,
    )


def _folded(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(text.split()).casefold() for text in texts)
