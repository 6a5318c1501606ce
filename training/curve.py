"""The picture of gain against coverage: what a rewriter is worth when it answers only what it is sure of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.evaluate import CurvePoint


def draw(curve: Sequence[CurvePoint], path: Path) -> None:
    """Draw mean change of nDCG@10 against the share of queries rewritten, one line per retriever.

    Raises:
        ValueError: the curve is empty: there was no rewriter.
    """
    if not curve:
        raise ValueError("no curve to draw: it needs a rewriter")
    from matplotlib.figure import Figure  # noqa: PLC0415 -- most evaluations draw nothing

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.0, color="grey", linewidth=0.8)
    for retriever in dict.fromkeys(point.retriever for point in curve):
        points = [point for point in curve if point.retriever == retriever]
        axes.plot(
            [point.coverage for point in points],
            [point.delta for point in points],
            marker=".",
            label=retriever,
        )
    axes.set_xlabel("coverage: share of queries rewritten")
    axes.set_ylabel("mean change of nDCG@10, all queries")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
