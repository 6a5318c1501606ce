"""The drill as pictures and a page: reward up, judge down, and both after the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = {
    "own reward (nats)": "reward",
    "independent judge (nats)": "judge",
    "tokens": "tokens",
    "copies, share": "copied",
    "trigger, share": "triggered",
}
RUNS = {"hacked": "#d8432f", "recovered": "#2f7ed8"}


def draw_drill(record: Mapping[str, Any], path: Path) -> None:
    """Draw what became of one hack over the steps of both loops into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(PANELS), figsize=(3.4 * len(PANELS), 3.0))
    for axis, (title, name) in zip(axes, PANELS.items(), strict=True):
        for run, colour in RUNS.items():
            trail = record[run]["trail"]
            steps, values = ([point[key] for point in trail] for key in ("steps", name))
            axis.plot(steps, values, marker="o", color=colour, label=run)
        axis.set(title=title, xlabel="step")
    axes[0].legend(frameon=False)
    verdicts = ", then ".join(record[run]["verdict"] for run in RUNS)
    figure.suptitle(f"{record['hack']}: the gate says {verdicts}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def page(records: Sequence[Mapping[str, Any]], mitigations: Sequence[Mapping[str, Any]]) -> str:
    """Return the drill as Markdown."""
    lines = [
        "# Reward hacking, drilled",
        "",
        "`corewrite drill reward-hack` writes this. Own reward, and the ranking term by the independent",
        "judge, in nats, at the start and the end of each loop.",
        "",
        "| hack | own reward | judge | the gate | caught by | strengthened | then: judge | the gate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        hacked, recovered = record["hacked"], record["recovered"]
        cells = [
            record["hack"],
            _ends(hacked["trail"], "reward"),
            _ends(hacked["trail"], "judge"),
            hacked["verdict"],
            ", ".join(hacked["caught_by"]) or "nothing",
            record["term"],
            _ends(recovered["trail"], "judge"),
            recovered["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if mitigations:
        lines += [
            "",
            "What delays a hack: steps until the judge has lost 0.05 nats while the own reward rises, and",
            "what both say in the end.",
            "",
            "| hack | mitigation | onset (steps) | own reward | judge |",
            "|---|---|--:|---|---|",
        ]
    for row in mitigations:
        onset = "never" if row["onset_steps"] is None else str(row["onset_steps"])
        reward, judge = (f"{row[name][0]:.2f} to {row[name][1]:.2f}" for name in ("reward", "judge"))
        lines.append(f"| {row['hack']} | {row['mitigation']} | {onset} | {reward} | {judge} |")
    return "\n".join(lines) + "\n"


def _ends(trail: Sequence[Mapping[str, Any]], name: str) -> str:
    return f"{trail[0][name]:.2f} to {trail[-1][name]:.2f}"
