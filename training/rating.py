"""From completions to rewards: guard, evidence of every scorer, terms, ensemble, shaping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.contracts.reasons import Drop
from app.engines.base import Completion
from app.relevance.base import Relevance
from app.rewrite.guard import Limits, drop_of, subject_of
from training.config import RewardConfig
from training.datasets.instances import Instance
from training.retrieval import tokens
from training.reward import Evidence, Reward, RewardKnobs, reward
from training.scoring import FinerankScorer, OverlapScorer, RawrankScorer, Scorer, evidence
from training.shaping import SHAPINGS, mean_of, with_distinct_ngrams, worst_of


@dataclass(frozen=True, slots=True)
class RatedCompletion:
    """A completion, what it is worth (shaped), and the reward of the first scorer with its terms."""

    completion: Completion
    reward: float
    terms: Reward
    evidence: Evidence

    @property
    def floored(self) -> bool:
        """Whether it must never win."""
        return self.terms.floored is not None


class Rater:
    """Rates the completions of instances as a configuration says. Scorers are asked in the order it names."""

    def __init__(self, config: RewardConfig, scorers: Mapping[str, Scorer]) -> None:
        self._config = config
        self._scorers = scorers
        self._knobs = RewardKnobs(
            form=config.form,
            gamma=config.gamma,
            alpha=config.alpha,
            token_cost=config.token_cost,
            free_tokens=config.free_tokens,
            floored=frozenset(Drop) - frozenset(config.not_floored),
        )

    @classmethod
    def over(cls, config: RewardConfig, relevance: Relevance, corpus: Sequence[str]) -> Rater:
        """A rater with the deployed model; `corpus` is what the offline proxy counts words in."""
        makers: dict[str, Callable[[], Scorer]] = {
            "rawrank": lambda: RawrankScorer(relevance),
            "finerank": lambda: FinerankScorer(relevance),
            "overlap": lambda: OverlapScorer(corpus),
        }
        return cls(config, {name: makers[name]() for name in config.scorers})

    async def rate(
        self, instances: Sequence[Instance], drawn: Sequence[Sequence[Completion]]
    ) -> list[list[RatedCompletion]]:
        """Return the rated completions of each instance, in the order they came in.

        Raises:
            RelevanceError: the model cannot answer.
        """
        # The original stands first: what it is worth is the reference of the step that a rewrite makes.
        texts = [
            [instance.query, *(completion.text.strip() for completion in completions)]
            for instance, completions in zip(instances, drawn, strict=True)
        ]
        found = [await evidence(scorer, instances, texts) for scorer in self._scorers.values()]
        return [
            self._rated(instance, completions, members)
            for instance, completions, *members in zip(instances, drawn, *found, strict=True)
        ]

    def _rated(
        self,
        instance: Instance,
        completions: Sequence[Completion],
        members: Sequence[Sequence[Evidence]],
    ) -> list[RatedCompletion]:
        """Members hold the evidence of the original and of each completion, one row a scorer."""
        subject = subject_of(instance.query, instance.context, Limits())
        drops = [drop_of(subject, one.text.strip(), one.finish_reason) for one in completions]
        rewards = [
            [
                reward(
                    said,
                    tokens=len(one.token_ids) - (one.finish_reason == "stop"),
                    truncated=one.finish_reason == "length",
                    drop=drop,
                    knobs=self._knobs,
                )
                for one, drop, said in zip(completions, drops, row[1:], strict=True)
            ]
            for row in members
        ]
        originals = [
            reward(row[0], tokens=0, truncated=False, drop=None, knobs=self._knobs).total for row in members
        ]
        values = self._shaped(completions, rewards, originals)
        return [
            RatedCompletion(one, value, terms, said)
            for one, value, terms, said in zip(completions, values, rewards[0], members[0][1:], strict=True)
        ]

    def _shaped(
        self,
        completions: Sequence[Completion],
        rewards: Sequence[Sequence[Reward]],
        originals: Sequence[float],
    ) -> list[float]:
        together = mean_of if self._config.ensemble == "mean" else worst_of
        totals = together([[one.total for one in row] for row in rewards])
        if n := self._config.distinct_ngrams:
            totals = [
                with_distinct_ngrams(value, tokens(one.text), n)
                for one, value in zip(completions, totals, strict=True)
            ]
        free = [value for value, one in zip(totals, rewards[0], strict=True) if one.floored is None]
        reference = math.fsum(free) / len(free) if free else 0.0
        if self._config.shaping == "delta":
            (reference,) = together([[value] for value in originals])
        return SHAPINGS[self._config.shaping](totals, reference)
