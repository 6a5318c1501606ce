"""Quantiles out of a histogram's buckets: an estimate, within the bucket by a straight line. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return the value below which a share of what was observed lies; None where nothing was.

    Args:
        buckets: (upper end, observations up to it), growing; the last end is infinite.
        share: 0..1. In the last bucket, which has no end, it is the end of the one before.
    """
    if not buckets or not buckets[-1][1]:
        return None
    wanted = share * buckets[-1][1]
    for (start, below), (end, upto) in pairwise([(0.0, 0.0), *buckets]):
        if upto >= wanted and upto > below:
            return start if math.isinf(end) else start + (end - start) * (wanted - below) / (upto - below)
    return None
