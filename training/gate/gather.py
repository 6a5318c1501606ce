"""The evidence for a verdict: both checkpoints answer the window, and every metric is taken of every answer.

By metric, and where it comes from:

    r_main, s_pos, s_rand, improved     the reward's terms, by the model that serves
    judge, inflation                    the same ranking term, by a model that no reward reads
    ndcg@10                             the staged stack with rewrites at all stages, by labels
    entropy, surprisal, kl              both policies' distributions over what they wrote
    tokens, truncated, copied, distinct, guarded        what they wrote
    latency, memory                     `training.gate.serving`
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.contracts.reasons import Drop
from app.engines.base import Completion
from app.engines.text import read_tokenizer
from training.anchors import first_choices
from training.config import RewardConfig, SampleConfig
from training.datasets.instances import Instance, Search
from training.gate.independent import CosineScorer
from training.gate.likelihood import Tokens, likelihoods
from training.gate.statistics import Floats
from training.gate.verdict import Measurement
from training.rating import RatedCompletion, Rater
from training.retrieval import tokens
from training.sampling import prompt_ids
from training.scoring import Scorer

INFLATION = 3.0
"""Gain by the reward's model for each of the judge's that is no inflation yet. Two models spread over
different ranges: each gain is in standard deviations of its own ranking terms for the incumbent."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one checkpoint says to each instance, and what both models make of it.

    Args:
        said: first choices.
        rated: by the reward's model, every drop of the guard on the floor.
        judged: by the independent one.
    """

    said: Sequence[Completion]
    rated: Sequence[RatedCompletion]
    judged: Sequence[RatedCompletion]


@dataclass(frozen=True, slots=True)
class Models:
    """Who rates: the reward's scorer, and a judge that has no part in the reward."""

    reward: Scorer
    judge: CosineScorer


def answer(
    checkpoints: Sequence[Path],
    instances: Sequence[Instance],
    models: Models,
    config: SampleConfig,
    *,
    threads: int,
) -> list[Answers]:
    """Return what each checkpoint answers; the judge is fitted on the instances' original queries.

    Raises:
        EngineError, RelevanceError: an engine or a model cannot answer.
        DataError: the judge cannot be fitted on these instances.
    """
    searches = [Search(one.query, one.context) for one in instances]
    said = [first_choices(folder, searches, config, threads=threads) for folder in checkpoints]

    async def rate() -> tuple[list[list[RatedCompletion]], list[list[RatedCompletion]]]:
        both = [list(group) for group in zip(*said, strict=True)]
        await models.judge.fit(instances)
        rated = await Rater(RewardConfig(), {"reward": models.reward}).rate(instances, both)
        return rated, await Rater(RewardConfig(), {"judge": models.judge}).rate(instances, both)

    rated, judged = asyncio.run(rate())
    return [
        Answers(of, [row[place] for row in rated], [row[place] for row in judged])
        for place, of in enumerate(said)
    ]


def measure(candidate: Answers, incumbent: Answers) -> dict[str, Measurement]:
    """Return the metrics of texts and rewards. Pure."""

    def both(metric: Callable[[Answers], Floats]) -> Measurement:
        return Measurement(metric(candidate), metric(incumbent))

    r_main, judged = both(lambda of: _ranking(of.rated)), both(lambda of: _ranking(of.judged))
    new, old = (np.array([one.reward for one in of.rated]) for of in (candidate, incumbent))
    return {
        "r_main": r_main,
        "s_pos": both(lambda of: _evidence(of.rated, "s_pos")),
        "s_rand": both(lambda of: _evidence(of.rated, "s_rand")),
        "improved": Measurement((new > old).astype(float), (old > new).astype(float)),
        "judge": judged,
        "inflation": Measurement(_in_deviations(r_main) - INFLATION * _in_deviations(judged), None),
        "tokens": both(lambda of: _lengths(of.said)),
        "truncated": both(lambda of: _share(of.rated, {Drop.TRUNCATED})),
        "copied": both(lambda of: _share(of.rated, {Drop.COPY})),
        "guarded": both(lambda of: _share(of.rated, set(Drop) - {Drop.COPY})),
        "distinct": both(lambda of: distinct([one.text for one in of.said])),
    }


def distribution(
    checkpoints: tuple[Path, Path], instances: Sequence[Instance], answers: tuple[Answers, Answers]
) -> dict[str, Measurement]:
    """Return the metrics of what candidate and incumbent make of their tokens.

    Raises:
        ValueError: their vocabularies differ.
    """
    candidate, incumbent = checkpoints
    own, before = (_tokens(folder, instances, of) for folder, of in zip(checkpoints, answers, strict=True))
    new, old = likelihoods(candidate, incumbent, own), likelihoods(incumbent, incumbent, before)
    return {
        "entropy": Measurement(new.entropy, old.entropy),
        "surprisal": Measurement(new.surprisal, old.surprisal),
        "kl": Measurement(new.kl, None),
    }


def distinct(texts: Sequence[str]) -> Floats:
    """Return for each text the mean over its pairs of words of 1 / how often all texts have the pair.

    1 where no other text has any of them; a mean near 0 is a policy that says the same to everybody. A text
    of one word counts as a pair of its own. Summed over pairs in place of texts it were distinct-2 (Li et
    al., NAACL 2016).
    """
    pairs = [_pairs(text) for text in texts]
    count = Counter(pair for of in pairs for pair in of)
    return np.array([sum(1 / count[pair] for pair in of) / len(of) if of else 0.0 for of in pairs])


def _pairs(text: str) -> list[tuple[str, ...]]:
    words = tokens(text)
    return [tuple(words[place : place + 2]) for place in range(max(1, len(words) - 1))] if words else []


def _tokens(folder: Path, instances: Sequence[Instance], answers: Answers) -> list[Tokens]:
    tokenizer, _ = read_tokenizer(folder)
    return [
        Tokens(tuple(prompt_ids(tokenizer, one)), own.token_ids)
        for one, own in zip(instances, answers.said, strict=True)
    ]


def _in_deviations(measured: Measurement) -> Floats:
    if measured.incumbent is None or not (spread := float(measured.incumbent.std())):
        return np.full(measured.candidate.shape, np.nan)  # everything is alike to it: no gain can be told
    return (measured.candidate - measured.incumbent) / spread


def _ranking(rated: Sequence[RatedCompletion]) -> Floats:
    return np.array([one.terms.ranking for one in rated])


def _evidence(rated: Sequence[RatedCompletion], name: str) -> Floats:
    values = [getattr(one.evidence, name) for one in rated]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _lengths(said: Sequence[Completion]) -> Floats:
    return np.array([len(one.token_ids) - (one.finish_reason == "stop") for one in said], np.float64)


def _share(rated: Sequence[RatedCompletion], of: Collection[Drop]) -> Floats:
    return np.array([one.terms.floored in of for one in rated], np.float64)
