"""The study as a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Ends = Mapping[str, Sequence[Mapping[str, Any]]]


def summary(found: Ends) -> list[dict[str, Any]]:
    """Return a row for each kind: how its rollouts ended, and the median searches until then."""
    rows = []
    for key, ends in found.items():
        success, judge = key.split(" | ")
        shares = {
            action: sum(end["action"] == action for end in ends) / len(ends)
            for action in ("rolled back", "promoted", "neither")
        }
        times = {
            "exposed until back": _median(ends, "rolled back", "exposed"),
            "searches until everybody": _median(ends, "promoted", "searches"),
        }
        rows.append({"success": success, "judge": judge, "rollouts": len(ends), **shares, **times})
    return rows


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of `summary` as Markdown."""
    lines = [
        "# What the judge of rollouts gets right, and how soon",
        "",
        "`python -m training.canary.study` writes this: simulated rollouts of `app/rollout/launch.toml`,",
        "the times of its steps taken out; the same numbers for each judge, but where the past is known.",
        "Searches are thousands, the median of those that ended so: of the canary's clients until it",
        "was rolled back, of everybody until it was promoted. *The past known*: a million searches before",
        "the rollout are, by the same clients, and what these are like is taken out (CUPED).",
        "",
        "| success | judge | rollouts | back | promoted | neither | exposed until back | until everybody |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        shares = [f"{row[action]:.1%}" for action in ("rolled back", "promoted", "neither")]
        times = [
            "" if (time := row[name]) is None else f"{time / 1000:.0f}"
            for name in ("exposed until back", "searches until everybody")
        ]
        cells = [row["success"], row["judge"], str(row["rollouts"]), *shares, *times]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![ends](canary.png)", ""])


def draw(found: Ends, path: Path) -> None:
    """Draw the share of rollouts that have ended, by searches, into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    kinds = list(dict.fromkeys(key.split(" | ")[0] for key in found))
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), sharey=True)
    for axis, kind in zip(axes.flat, kinds, strict=True):
        ends_as = "promoted" if kind.startswith("+") else "rolled back"
        for key, ends in found.items():
            success, judge = key.split(" | ")
            if success == kind:
                times = sorted(end["searches"] / 1000 for end in ends if end["action"] == ends_as)
                shares = [(place + 1) / len(ends) for place in range(len(times))]
                axis.step([0.0, *times], [0.0, *shares], where="post", label=judge)
        axis.set(title=f"true success: {kind}", xlabel="thousands of searches", ylabel=f"share {ends_as}")
    axes.flat[0].axhline(0.05, color="black", linewidth=0.8, linestyle=":")
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _median(ends: Sequence[Mapping[str, Any]], action: str, of: str) -> float | None:
    values = [end[of] for end in ends if end["action"] == action]
    return median(values) if values else None
