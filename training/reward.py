"""What a rewrite is worth to the ranker: log r(y), with the deployed relevance model as S. Pure.

    log r(y) = clip(ranking) - length - truncation        or the floor, whatever the terms say

Each term is a function of its own, bounded, and logged by its name. A floor overrides and is no term: a sum
could be bought back by relevance, and a copy is as relevant as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.contracts.fusion import log_reward
from app.contracts.reasons import Drop

Form = Literal["ratio", "positive", "difference"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Mean relevance of a rewrite to the documents of one instance, each in [0, 1].

    Args:
        s_pos: to the clicked documents, weighted by strict-click rate.
        s_neg: to the skipped ones, weighted by no-action rate; None where nothing was skipped.
        s_rand: to random ones; None where there are none.
    """

    s_pos: float
    s_neg: float | None
    s_rand: float | None


@dataclass(frozen=True, slots=True)
class RewardKnobs:
    """The constants of the reward.

    Args:
        form: `ratio` is the ranker's own algebra; `positive` is log S_pos alone and `difference` the same sum
            without logarithms, to compare with.
        gamma, alpha: of the ratio; see `app.contracts.fusion.log_reward`.
        bound: the ranking term is clipped to [-bound, bound], in nats.
        free_tokens: a rewrite so long costs nothing.
        token_cost: nats for each token more, at most `bound` in all.
        truncation: nats for running into the token limit, where that is no floor.
        floor: log r of what must never win; below all that the terms can reach.
        floored: the drops of the guard that are such.
    """

    form: Form = "ratio"
    gamma: float = 2.0
    alpha: float = 0.5
    bound: float = 12.0
    free_tokens: int = 12
    token_cost: float = 0.1
    truncation: float = 2.0
    floor: float = -40.0
    floored: frozenset[Drop] = frozenset(Drop)

    def __post_init__(self) -> None:
        if min(self.bound, self.token_cost, self.truncation, self.gamma + 1, self.alpha) < 0:
            raise ValueError("bound, token_cost, truncation and alpha must be >= 0, gamma >= -1")
        if self.floor >= -(2 * self.bound + self.truncation):
            raise ValueError(f"floor {self.floor} must be below all that the terms can reach")


@dataclass(frozen=True, slots=True)
class Reward:
    """log r of one rewrite, in nats, and what it is made of. `floored` names why the floor holds."""

    total: float
    ranking: float
    length: float
    truncation: float
    floored: Drop | None


def reward(
    evidence: Evidence, *, tokens: int, truncated: bool, drop: Drop | None, knobs: RewardKnobs
) -> Reward:
    """Return log r of one rewrite.

    Args:
        evidence: what the relevance model says of it.
        tokens: how long it is, the end token not counted.
        truncated: it ran into the token limit.
        drop: why the service's guard would not show it, or None.
        knobs: the constants.

    Raises:
        ValueError: a mean relevance is not a finite number >= 0: missing evidence is never a number.
    """
    ranking = ranking_term(evidence, knobs)
    length = length_term(tokens, knobs)
    cut = truncation_term(truncated=truncated, knobs=knobs)
    floored = drop if drop in knobs.floored else None
    total = ranking - length - cut if floored is None else knobs.floor
    return Reward(total, ranking, length, cut, floored)


def ranking_term(evidence: Evidence, knobs: RewardKnobs) -> float:
    """Return what the rewrite does for clicked documents against the others, in [-bound, bound].

    What an instance lacks, skipped or random documents, it lacks for all its rewrites alike; that part is
    left out.
    """
    s_pos, s_neg, s_rand = evidence.s_pos, evidence.s_neg, evidence.s_rand
    gamma, alpha = knobs.gamma, knobs.alpha if s_rand is not None else 0.0
    rand = s_pos if s_rand is None else s_rand
    if knobs.form == "difference":
        value = (1 + gamma) * s_pos - (s_neg or 0.0) + alpha * (s_pos - rand)
    else:
        # log 1 is 0: without skipped documents, or by their form, nothing is set against the clicked ones.
        if knobs.form == "positive":
            gamma, alpha, s_neg = 0.0, 0.0, None
        value = log_reward(s_pos, 1.0 if s_neg is None else s_neg, rand, gamma, alpha)
    return min(max(value, -knobs.bound), knobs.bound)


def length_term(tokens: int, knobs: RewardKnobs) -> float:
    """Return what a long rewrite costs, in [0, bound]: it costs time, and verbosity pleases any relevance."""
    return min(knobs.token_cost * max(0, tokens - knobs.free_tokens), knobs.bound)


def truncation_term(*, truncated: bool, knobs: RewardKnobs) -> float:
    """Return what running into the token limit costs: such a rewrite is half a sentence."""
    return knobs.truncation if truncated else 0.0


def weighted_mean(scores: Sequence[float], weights: Sequence[float]) -> float | None:
    """Return the mean of scores in [0, 1], weighted by rates > 0; None where there are none.

    Raises:
        ValueError: there are not as many weights as scores.
    """
    if len(scores) != len(weights):
        raise ValueError(f"{len(scores)} scores for {len(weights)} weights")
    if not scores:
        return None
    return sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights)
