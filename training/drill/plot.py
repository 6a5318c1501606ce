"""The drill as pictures and a page: reward up, judge down, and both after the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.drill.trail import LOSS

PANELS = {
    "own reward (nats)": "reward",
    "independent judge (nats)": "judge",
    "nDCG@10 by labels": "ndcg",
    "tokens": "tokens",
    "copies, share": "copied",
    "trigger, share": "triggered",
}
COLUMNS = (
    "hack",
    "own reward",
    "judge",
    "nDCG@10",
    "the gate",
    "caught by",
    "strengthened",
    "then: judge",
    "then: nDCG@10",
    "then: the gate",
)
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
        "`corewrite drill reward-hack` writes this. At the start and the end of each loop: its own reward",
        "and the ranking term by the independent judge, in nats, and nDCG@10 of first choices by labels.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for record in records:
        hacked, recovered = record["hacked"], record["recovered"]
        cells = [
            record["hack"],
            _ends(hacked["trail"], "reward"),
            _ends(hacked["trail"], "judge"),
            _ends(hacked["trail"], "ndcg", 3),
            hacked["verdict"],
            ", ".join(hacked["caught_by"]) or "nothing",
            record["term"],
            _ends(recovered["trail"], "judge"),
            _ends(recovered["trail"], "ndcg", 3),
            recovered["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"![{record['hack']}]({record['hack']}/trail.png)" for record in records)]
    if mitigations:
        lines += [
            "",
            f"What delays a hack: steps until nDCG@10 has lost {LOSS} while the own reward rises, and what",
            "all say in the end.",
            "",
            "| hack | mitigation | onset (steps) | own reward | judge | nDCG@10 |",
            "|---|---|--:|---|---|---|",
        ]
    for row in mitigations:
        onset = "never" if row["onset_steps"] is None else str(row["onset_steps"])
        reward, judge = (f"{row[name][0]:.2f} to {row[name][1]:.2f}" for name in ("reward", "judge"))
        ndcg = "{:.3f} to {:.3f}".format(*row["ndcg"])
        lines.append(f"| {row['hack']} | {row['mitigation']} | {onset} | {reward} | {judge} | {ndcg} |")
    return "\n".join(lines) + "\n"


def _ends(trail: Sequence[Mapping[str, Any]], name: str, digits: int = 2) -> str:
    return f"{trail[0][name]:.{digits}f} to {trail[-1][name]:.{digits}f}"
