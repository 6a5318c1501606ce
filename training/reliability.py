"""Is a confidence of 0.7 right seven times in ten? Reliability by kind, as numbers and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts.confidence import KINDS
from training.calibrate import Observation

BINS = 10

Reliability = dict[str, dict[str, Any]]
"""By kind: `count`, `ece`, `auroc`, and `bins` of `confidence`, share `right` and `count`."""


def reliability(observations: Sequence[Observation], confidences: NDArray[np.float64]) -> Reliability:
    """Return what `reliability_of` says of the first completions of each kind."""
    report: Reliability = {}
    for kind in KINDS:
        chosen = [n for n, o in enumerate(observations) if o.kind == kind and o.first]
        right = np.array([observations[n].right for n in chosen], dtype=float)
        report[kind] = reliability_of(confidences[chosen], right)
    return report


def reliability_of(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Any]:
    """Return count, bins and the expected calibration error of probabilities and what came true (0 or 1).

    ECE is the mean distance of confidence and share right over ten equal bins, weighted by their size
    (Naeini et al., AAAI 2015). `auroc` is the chance that a right one is trusted more than a wrong one.
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        {
            "confidence": round(float(confidence[place == b].mean()), 4),
            "right": round(float(right[place == b].mean()), 4),
            "count": int((place == b).sum()),
        }
        for b in range(BINS)
        if (place == b).any()
    ]
    error = sum(abs(b["confidence"] - b["right"]) * b["count"] for b in bins) / max(1, len(confidence))
    return {
        "count": len(confidence),
        "ece": round(error, 4),
        "auroc": _auroc(confidence, right),
        "bins": bins,
    }


def draw_reliability(report: Reliability, path: Path) -> None:
    """Draw the bins of every kind against the diagonal, into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(report), figsize=(4 * len(report), 4), sharey=True, squeeze=False)
    for axis, (kind, facts) in zip(axes[0], report.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        sizes = [20 + 180 * b["count"] / max(1, facts["count"]) for b in facts["bins"]]
        axis.scatter([b["confidence"] for b in facts["bins"]], [b["right"] for b in facts["bins"]], s=sizes)
        axis.set(title=f"{kind}: n={facts['count']}, ECE={facts['ece']:.3f}", xlabel="confidence")
    axes[0][0].set_ylabel("share right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _auroc(scores: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve by ranks (Mann-Whitney); None where one side is empty."""
    positives, negatives = scores[right == 1], scores[right == 0]
    if not len(positives) or not len(negatives):
        return None
    above = (positives[:, None] > negatives[None, :]).mean() + 0.5 * (positives[:, None] == negatives).mean()
    return round(float(above), 4)
