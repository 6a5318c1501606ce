"""Ways to bend a reward so that its optimum is harder to cheat. Pure; each a function, with its source.

Rewards are log r in nats (`training.reward`). `reference` is what the policy at the start of the phase would
get for the same instance: the mean over its samples. Shapings that are monotone in the reward of one instance
(`preference_as_reward`, `log_sigmoid`, `against_original`) keep the order of its rewrites: pairs of the best
and the worst stay the same but for what is a tie. They tell where a learner weighs by the reward itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Shaping = Callable[[Sequence[float], float], list[float]]
"""Rewards of the rewrites of one instance and their reference -> shaped rewards, in the same order."""


def unshaped(rewards: Sequence[float], reference: float) -> list[float]:
    """Return the rewards as they are."""
    del reference
    return list(rewards)


def preference_as_reward(rewards: Sequence[float], reference: float) -> list[float]:
    """Return sigmoid(r - r_ref), in (0, 1): bounded, steepest at the reference (PAR, arXiv 2502.18770)."""
    return [_sigmoid(value - reference) for value in rewards]


def log_sigmoid(rewards: Sequence[float], reference: float) -> list[float]:
    """Return ln sigmoid(r - r_ref), below 0: to be better than good enough adds little (arXiv 2402.00742)."""
    return [-_softplus(reference - value) for value in rewards]


def clipped(rewards: Sequence[float], reference: float, most: float = 1.0) -> list[float]:
    """Return min(r, r_ref + most): beyond it all are alike, and a tie is no pair (Clip, arXiv 2410.15115)."""
    return [min(value, reference + most) for value in rewards]


def against_original(rewards: Sequence[float], original: float) -> list[float]:
    """Return r - r(original query): the step that the rewrite makes (Delta, arXiv 2410.15115)."""
    return [value - original for value in rewards]


def mean_of(members: Sequence[Sequence[float]]) -> list[float]:
    """Return for each rewrite the mean over relevance models (arXiv 2312.09244).

    Args:
        members: per model, a reward for each rewrite.

    Raises:
        ValueError: there is no model, or they differ in their number of rewrites.
    """
    return [math.fsum(column) / len(column) for column in _columns(members)]


def worst_of(members: Sequence[Sequence[float]]) -> list[float]:
    """Return for each rewrite the least over relevance models: all must be pleased; see `mean_of`."""
    return [min(column) for column in _columns(members)]


def with_distinct_ngrams(value: float, words: Sequence[str], n: int = 2) -> float:
    """Return log (r · distinct-n): relevance by the share of n-grams that are new (arXiv 2402.03469)."""
    return value + math.log(distinct_ratio(words, n))


def distinct_ratio(words: Sequence[str], n: int) -> float:
    """Return distinct n-grams / n-grams, in (0, 1]; 1 where there are fewer than n words."""
    ngrams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


SHAPINGS: Mapping[str, Shaping] = {
    "none": unshaped,
    "par": preference_as_reward,
    "log_sigmoid": log_sigmoid,
    "clip": clipped,
    "delta": against_original,
}
"""By the names that a configuration has for them."""


def _columns(members: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    if not members or len({len(row) for row in members}) > 1:
        raise ValueError("need a relevance model, and a reward of each for every rewrite")
    return list(zip(*members, strict=True))


def _sigmoid(value: float) -> float:
    return math.exp(-_softplus(-value))


def _softplus(value: float) -> float:
    """ln(1 + e^value), without overflow."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
