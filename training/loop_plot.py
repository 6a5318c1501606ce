"""How a loop went, as a picture: what held-out queries say after each phase, and the loss within them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.loop import measured_phases, phase_folder

PANELS = {
    "reward of first choices (nats)": ("reward",),
    "share of queries against the incumbent": ("improved", "worsened", "floored"),
    "mean relevance": ("s_pos", "s_neg", "s_rand"),
    "tokens": ("tokens",),
}


def draw_loop(run_dir: Path, phases: int, path: Path) -> None:
    """Draw the measures of phases 0 (the incumbent) to `phases` and the loss of every step into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    measured = measured_phases(run_dir)
    figure, axes = plt.subplots(1, len(PANELS) + 1, figsize=(4 * (len(PANELS) + 1), 3.4))
    for axis, (title, names) in zip(axes, PANELS.items(), strict=False):
        for name in names:
            axis.plot(*_points(measured, name), marker="o", label=name)
        axis.set(title=title, xlabel="phase")
        axis.legend()
    folders = [phase_folder(run_dir, phase) for phase in range(1, phases + 1)]
    losses = [loss for folder in folders for loss in _losses(folder / "steps.jsonl")]
    axes[-1].plot(range(1, len(losses) + 1), losses, linewidth=1)
    axes[-1].set(title="loss", xlabel="step")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _points(measured: Mapping[int, Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Phases and values; what a phase did not measure has no point."""
    found = [(phase, row[name]) for phase, row in measured.items() if row.get(name) is not None]
    return [phase for phase, _ in found], [value for _, value in found]


def _losses(steps: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in steps.read_text(encoding="utf-8").splitlines()]
