"""The algebra of the rewrite signal, imported by app/ and training/ alike: no second copy may exist.

The neutral element holds it together. At a ranking stage a rewrite enters as a factor, and 1 is neutral; at
recall it enters as one more ranking, and weight 0 is neutral. Whatever is missing or not a positive finite
number is neutral, so that a doubtful rewrite leaves the original ranking as it was, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

RRF_K = 60
"""Rank offset of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

RECALL_CEILING = 1.5
"""Weight at recall of a rewrite that is certain, where the original's is 1; see `recall_weight`."""

RECALL_SHARPNESS = 1.0
"""How fast the weight at recall falls with confidence. This and the ceiling by `python -m training.tune`."""

RAWRANK_WEIGHT, FINERANK_WEIGHT = 0.5, 1.5
"""b of each ranking stage: the exponent of a rewrite that is certain; see `rank_weight`."""

BREAK_EVEN = 0.2
"""Confidence up to which a rewrite weighs nothing at a ranking stage. It and b by
`python -m training.sweep_stages`."""

MAX_FACTOR = 100.0
"""c. Less keeps less of what right rewrites gain and hardly more from a wrong one, whose b · confidence binds
first (`python -m training.blast_radius`)."""

SCORE_FLOOR = 1e-6
"""Relevance below this is read as this in the reward, so that one zero cannot make it infinite."""


def phi(score: float | None, geometric_mean: float | None, weight: float, clip: float) -> float:
    """Return the factor clip((score / geometric_mean) ** weight, 1/clip, clip) of one candidate.

    Args:
        score: s(y, d) in (0, 1], the relevance of the candidate to the rewrite.
        geometric_mean: gm(y), the geometric mean of the scores over the candidates.
        weight: b, how much the rewrite counts; 0 is neutral.
        clip: c >= 1, the largest factor a rewrite may ever apply.

    Returns:
        A factor in [1/clip, clip]; 1.0 when an input is missing, not finite, or not positive.

    Raises:
        ValueError: `clip` is not a finite number >= 1. That is a wrong setting, not a doubtful rewrite.
    """
    return _bounded(_exponent(score, geometric_mean, weight), clip)


def factors(scores: Sequence[Sequence[float | None]], weights: Sequence[float], clip: float) -> list[float]:
    """Return φ(d) = clip(Π_i (s(y_i, d) / gm(y_i)) ** b_i, 1/clip, clip) of every candidate.

    Several rewrites together move a candidate no further than one may.

    Args:
        scores: per rewrite, s(y_i, d) of each candidate, in (0, 1]; one that is not usable is neutral.
        weights: b_i per rewrite; one that is not positive and finite leaves its rewrite out.
        clip: c >= 1, the largest factor.

    Raises:
        ValueError: there is no rewrite, they differ in their number of candidates or are not as many as
            weights, or `clip` is not a finite number >= 1.
    """
    if not scores or len(scores) != len(weights) or len({len(row) for row in scores}) > 1:
        raise ValueError("need a rewrite, one weight for each, and a score of each for every candidate")
    means = [geometric_mean(row) for row in scores]
    rewrites = list(zip(means, weights, strict=True))
    return [
        _bounded(
            math.fsum(_exponent(s, mean, b) for s, (mean, b) in zip(column, rewrites, strict=True)), clip
        )
        for column in zip(*scores, strict=True)
    ]


def geometric_mean(scores: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the usable scores, or None when there is none.

    Missing, non-finite and non-positive scores are left out: their candidates get the neutral factor.
    """
    logs = [math.log(score) for score in scores if _usable(score)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def log_reward(s_pos: float, s_neg: float, s_rand: float, gamma: float, alpha: float) -> float:
    """Return (1+gamma)·log s_pos - log s_neg + alpha·(log s_pos - log s_rand), in nats.

    Args:
        s_pos: mean relevance of the rewrite to the clicked documents, in [0, 1].
        s_neg: the same for the skipped documents.
        s_rand: the same for random documents; punishes rewrites that match everything.
        gamma: extra weight of being relevant at all, beside being more relevant than the skipped.
        alpha: weight of the contrast with random documents.

    Raises:
        ValueError: a mean relevance is not a finite number >= 0: missing evidence is never a number.
    """
    for name, value in (("s_pos", s_pos), ("s_neg", s_neg), ("s_rand", s_rand)):
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    pos, neg, rand = (math.log(max(value, SCORE_FLOOR)) for value in (s_pos, s_neg, s_rand))
    return (1.0 + gamma) * pos - neg + alpha * (pos - rand)


def fuse_ranks(
    rankings: Sequence[Sequence[str]],
    weights: Sequence[float],
    k: int = RRF_K,
    *,
    shares: Sequence[Mapping[str, float]] | None = None,
) -> list[tuple[str, float]]:
    """Fuse rankings by weighted reciprocal rank: score(d) = Σ weight · share / (k + rank), ranks from 1.

    Args:
        rankings: document ids, best first; the original query's ranking comes first.
        weights: one per ranking. A later weight that is not positive and finite is neutral: its ranking
            is left out, so with no other weight left the order is the original's, bit for bit.
        k: rank offset; larger flattens.
        shares: per ranking, how much a document's place in it counts (`found_shares`); 1 where absent.

    Returns:
        The union of the rankings that count, best first. Ties keep the original's order, then the order of
        first appearance; no document of the original's ranking is ever lost. When a ranking repeats a
        document, its first place counts.

    Raises:
        ValueError: no ranking, a different number of weights, or a first weight that is not positive.
    """
    _check(rankings, weights)
    scores: dict[str, float] = {}
    for ranking, weight, share in zip(rankings, weights, shares or [{}] * len(rankings), strict=True):
        if not _usable(weight):
            continue
        for rank, doc_id in enumerate(dict.fromkeys(ranking), start=1):
            scores[doc_id] = scores.get(doc_id, 0.0) + weight * share.get(doc_id, 1.0) / (k + rank)
    # Insertion order is the original's order first, and sorted() is stable: that is the tie rule.
    return sorted(scores.items(), key=lambda item: -item[1])


def fuse_scores(
    runs: Sequence[Sequence[tuple[str, float]]], weights: Sequence[float], missing: Sequence[float]
) -> list[tuple[str, float]]:
    """Fuse scored runs by a weighted sum: score(d) = Σ weight · score_i(d).

    It is the ranker's product F = B · Π s_i ** b_i in logarithms, for scores that are logarithms up to a
    factor, as cosines of a contrastive encoder and BM25's sums of log-odds are.

    Args:
        runs: (doc_id, score), best first; the original query's run comes first.
        weights: one per run. A later weight that is not positive and finite is neutral: its run is left out,
            so with no other weight left the result is the original's run, bit for bit.
        missing: per run, the score of a document that it lacks.

    Returns:
        The union of the runs that count, best first; ties as in `fuse_ranks`. No document of the original's
        run is ever lost.

    Raises:
        ValueError: as `fuse_ranks`.
    """
    _check(runs, weights)
    counted = [n for n, weight in enumerate(weights) if n == 0 or _usable(weight)]
    if counted == [0] and weights[0] == 1.0:
        return list(runs[0])
    tables = {n: dict(runs[n]) for n in counted}
    documents = dict.fromkeys(doc_id for n in counted for doc_id, _ in runs[n])
    scores = {
        doc_id: math.fsum(weights[n] * tables[n].get(doc_id, missing[n]) for n in counted)
        for doc_id in documents
    }
    return sorted(scores.items(), key=lambda item: -item[1])


def found_shares(runs: Sequence[Sequence[tuple[str, float]]], weights: Sequence[float]) -> dict[str, float]:
    """Return for each document that the original's run lacks min(1, total weight of the runs that found it).

    A rank says nothing of how little a document's score may be. Where a fused run enters rank fusion with
    another retriever's, what only doubtful rewrites found counts by these shares: at weight 0 not at all.
    """
    _check(runs, weights)
    found: dict[str, float] = {}
    for run, weight in zip(runs[1:], weights[1:], strict=True):
        if _usable(weight):
            for doc_id, _ in run:
                found[doc_id] = min(1.0, found.get(doc_id, 0.0) + weight)
    for doc_id, _ in runs[0]:
        found.pop(doc_id, None)
    return found


def recall_weight(
    confidence: float, *, ceiling: float = RECALL_CEILING, sharpness: float = RECALL_SHARPNESS
) -> float:
    """Return the weight of a rewrite's ranking at recall: ceiling · confidence ** sharpness.

    A wrong rewrite loses more than a right one gains, so a doubtful one should weigh less than its share.

    Args:
        confidence: calibrated probability that the rewrite is right; above 1 counts as 1, NaN as 0.
        ceiling: the weight of a certain rewrite, where the original's is 1.
        sharpness: 1 is proportional; larger trusts only the sure ones.
    """
    if not _usable(confidence):
        return 0.0
    return float(ceiling * min(confidence, 1.0) ** sharpness)


def rank_weight(confidence: float, weight: float, *, break_even: float = BREAK_EVEN) -> float:
    """Return the exponent of a rewrite at a ranking stage: b · (confidence - t) / (1 - t), and 0 up to t.

    Below the break-even confidence t a wrong rewrite would lose more than a right one would gain, and there
    are so many doubtful ones that together they lose what the sure ones win.

    Args:
        confidence: calibrated probability that the rewrite is right; above 1 counts as 1, NaN as 0.
        weight: b, the exponent of a certain rewrite.
        break_even: t, in [0, 1).
    """
    if not (_usable(confidence) and confidence > break_even):
        return 0.0
    return float(weight * (min(confidence, 1.0) - break_even) / (1.0 - break_even))


def _exponent(score: float | None, geometric_mean: float | None, weight: float) -> float:
    if not (_usable(score) and _usable(geometric_mean) and _usable(weight)):
        return 0.0
    return weight * (math.log(score) - math.log(geometric_mean))


def _bounded(exponent: float, clip: float) -> float:
    if not (math.isfinite(clip) and clip >= 1.0):
        raise ValueError(f"clip must be a finite number >= 1, not {clip!r}")
    bound = math.log(clip)
    return min(max(math.exp(min(max(exponent, -bound), bound)), 1.0 / clip), clip)


def _check(rankings: Sequence[object], weights: Sequence[float]) -> None:
    if not rankings or len(rankings) != len(weights):
        raise ValueError(f"need one weight per ranking, got {len(rankings)} rankings, {len(weights)} weights")
    if not _usable(weights[0]):
        raise ValueError(f"the original's weight must be a positive finite number, not {weights[0]!r}")


def _usable(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value) and value > 0.0
