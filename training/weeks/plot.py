"""The weeks as a picture and a page: what redeployment gains on what stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

Record = Mapping[str, Any]
PANELS = {"traffic": "this week's searches, all stages", "apart": "titles apart, first choices alone"}
COLUMNS = (
    "week",
    "occupations (new)",
    "titles",
    "original",
    "frozen",
    "stable",
    "gain",
    "apart: frozen",
    "apart: stable",
    "apart: gain",
    "candidate",
    "held up by",
)
VERDICTS = {"PASS": "#2a9d4a", "FAIL": "#d8432f", "INCONCLUSIVE": "#8a8a8a", "ERROR": "#000000"}


def draw_weeks(records: Sequence[Record], path: Path) -> None:
    """Draw the gain of `stable` over the frozen checkpoint in each week into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(PANELS), 1, figsize=(8, 6), sharex=True)
    weeks = [record["week"] for record in records]
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        gains = [record[name]["gain"] for record in records]
        axis.axhline(0, color="black", linewidth=0.8)
        axis.fill_between(
            weeks, [one["low"] for one in gains], [one["high"] for one in gains], alpha=0.2, linewidth=0
        )
        axis.plot(weeks, [one["mean"] for one in gains])
        for verdict, colour in VERDICTS.items():
            places = [
                (week, one["mean"])
                for week, one, record in zip(weeks, gains, records, strict=True)
                if record["verdict"] == verdict
            ]
            if places:
                axis.scatter(*zip(*places, strict=True), color=colour, label=verdict, zorder=3)
        axis.set(title=title, ylabel="nDCG@10 over the frozen one")
    axes[0].legend(frameon=False, title="the week's candidate")
    axes[-1].set(xlabel="week")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(records: Sequence[Record]) -> str:
    """Return the weeks as Markdown."""
    verdicts = [record["verdict"] for record in records]
    counted = ", ".join(f"{verdicts.count(name)} {name}" for name in VERDICTS if name in verdicts)
    later = records[len(records) // 2 :]
    gains = ", ".join(
        f"{fmean(one[name]['gain']['mean'] for one in later):+.4f} ({title})"
        for name, title in PANELS.items()
    )
    lines = [
        "# Weeks of redeployment",
        "",
        "`python -m training.weeks.run` writes this (training/configs/weeks.toml): each week the cycle",
        "learns from that week's searches; what passes the gate serves from the next week on. Occupations",
        "come up and fade. nDCG@10 with what serves, before it has learnt anything of the week, against the",
        "first checkpoint, frozen, with 95 % intervals over queries.",
        "",
        "![gains](weeks.png)",
        "",
        f"{len(records)} weeks: {counted}. Mean gain over the frozen checkpoint in the second half: {gains}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for one in records:
        traffic, apart = one["traffic"], one["apart"]
        cells = [
            one["week"],
            f"{one['occupations']} ({one['came_up']})",
            one["titles"],
            *(f"{traffic[kind]:.3f}" for kind in ("original", "frozen", "stable")),
            _gain(traffic),
            *(f"{apart[kind]:.3f}" for kind in ("frozen", "stable")),
            _gain(apart),
            one["verdict"],
            ", ".join(one["held_up_by"]),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _gain(compared: Mapping[str, Any]) -> str:
    gain = compared["gain"]
    return f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
