"""Plots of the gate's report, as SVG to be set into the page: they take its colours, light or dark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

import numpy as np

from training.gate.verdict import Measurement

NEW, OLD, LINE = "#2f7ed8", "#8a8a8a", "#777777"
BINS = 24


def gains_svg(rewarded: Measurement, judged: Measurement) -> str:
    """What the reward's model says of each query against what the judge does: candidate less incumbent."""
    figure, (axis,) = _figure(1)
    x, y = (of.candidate - (of.incumbent if of.incumbent is not None else 0.0) for of in (judged, rewarded))
    axis.axhline(0, color=LINE, linewidth=0.6)
    axis.axvline(0, color=LINE, linewidth=0.6)
    axis.scatter(x, y, s=8, alpha=0.5, color=NEW, linewidths=0)
    axis.scatter([x.mean()], [y.mean()], s=60, color="#d8432f", marker="D", label="mean")
    axis.set(xlabel="gain by the judge (nats)", ylabel="gain by the reward's model (nats)")
    axis.legend(frameon=False)
    return _svg(figure)


def distributions_svg(measured: Mapping[str, Measurement]) -> str:
    """How candidate and incumbent spread over the values of each metric."""
    if not measured:
        return ""
    figure, axes = _figure(len(measured))
    for axis, (name, found) in zip(axes, measured.items(), strict=True):
        sides = {"candidate": (found.candidate, NEW)}
        if found.incumbent is not None:
            sides["incumbent"] = (found.incumbent, OLD)
        edges = np.histogram_bin_edges(np.concatenate([values for values, _ in sides.values()]), BINS)
        for side, (values, colour) in sides.items():
            axis.hist(values, edges, histtype="step", linewidth=1.6, color=colour, label=side)
        axis.set(xlabel=name, ylabel="queries")
        axis.legend(frameon=False)
    return _svg(figure)


def _figure(panels: int) -> tuple[Any, Any]:
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gate", "font.size": 9}):
        figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 3.2), squeeze=False)
    return figure, axes[0]


def _svg(figure: Any) -> str:
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- see above

    figure.patch.set_alpha(0)
    for axis in figure.axes:
        axis.patch.set_alpha(0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    text = StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gate"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"#000000|: black", lambda found: found[0].replace("#000000", "currentColor"), svg)
