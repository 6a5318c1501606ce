"""The ablations as pictures: means over seeds, with the least and the most of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

MEASURES = {
    "reward": "reward of first choices (nats)",
    "clicked independent": "nDCG@10, occupations with clicks",
    "quiet independent": "nDCG@10, occupations without",
    "canonical independent": "nDCG@10, canonical titles",
}
COSTS = ("syncs", "steps", "tokens", "seconds")

SYNC = "sync"
"""The group whose question is how often the sampler gets new weights."""


def draw_ablations(record: Mapping[str, Any], folder: Path) -> None:
    """Draw `ablations.png`, and `sync-interval.png` where that was run, into `folder`.

    Args:
        record: `start`, the measures of the checkpoint that all start from, and `rows`, one a run.
        folder: of the pictures.
    """
    rows: Sequence[Row] = record["rows"]
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _dots(rows, record["start"], folder / "ablations.png")
    if sync := [row for row in rows if row["group"] == SYNC]:
        _sync(sync, record["start"], folder / "sync-interval.png")


def table(record: Mapping[str, Any]) -> str:
    """Return the page with the means over seeds and their ranges, as Markdown."""
    rows, start = record["rows"], record["start"]
    found = {name: spread(rows, name) for name in (*MEASURES, *COSTS)}
    seeds = {key: len({row["seed"] for row in rows if _key(row) == key}) for key in found["reward"]}
    lines = [
        "# What each choice of the loop is worth",
        "",
        "Every variant changes the loop of `training/configs/ablations.toml` in one respect. Mean over seeds",
        "[least, most]; nDCG@10 is of first choices alone, on validation titles, by a retriever that no",
        "reward reads. Seconds compare within `loss` and within `sync`, which had the machine to themselves.",
        f"Machine: {record['machine']}. `make ablations` writes this page from `results/ablations.json`.",
        "",
        "| variant | seeds | " + " | ".join((*MEASURES.values(), *COSTS)) + " |",
        "|---" * (2 + len(MEASURES) + len(COSTS)) + "|",
        "| checkpoint at the start | | " + " | ".join(f"{start[name]:.3f}" for name in MEASURES) + " | " * 5,
    ]
    for (group, variant), count in seeds.items():
        cells = [_cell(found[name][group, variant], 3) for name in MEASURES]
        cells += [f"{found[name][group, variant][0]:,.0f}" for name in COSTS]
        lines.append(f"| {group}: {variant} | {count} | " + " | ".join(cells) + " |")
    lines += _stages(record["stages"])
    pictures = "![](plots/ablations.png)\n\n![](plots/sync-interval.png)"
    return "\n".join([*lines, "", pictures]) + "\n"


def _stages(stages: Mapping[str, Sequence[Row]]) -> list[str]:
    """The loop against its start through the stack: nDCG@10, difference and interval."""
    lines = ["", "Through the staged stack, the loop against the checkpoint at the start:", ""]
    lines += ["| split | stages | checkpoint | nDCG@10 | difference | 95 % |", "|---|---|---|---|---|---|"]
    for split, rows in stages.items():
        for row in rows:
            if row["arm"] != "none":
                low, high = row["delta_ci"]
                cells = f"{row['ndcg@10']:.4f} | {row['delta']:+.4f} | [{low:+.4f}, {high:+.4f}]"
                lines.append(f"| {split} | {row['arm']} | {row['checkpoint']} | {cells} |")
    return lines


def _cell(values: tuple[float, float, float], digits: int) -> str:
    mean, least, most = (f"{value:.{digits}f}" for value in values)
    return mean if least == most else f"{mean} [{least}, {most}]"


def _key(row: Row) -> tuple[str, str]:
    return row["group"], row["variant"]


def spread(rows: Sequence[Row], measure: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return (mean, least, most) over the seeds of each (group, variant), in the order they first come."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        values.setdefault(_key(row), []).append(row[measure])
    return {key: (sum(found) / len(found), min(found), max(found)) for key, found in values.items()}


def _dots(rows: Sequence[Row], start: Row, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 -- most of what imports this draws nothing

    names = list(spread(rows, "reward"))
    figure = Figure(figsize=(4 * len(MEASURES) + 2, 1 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(MEASURES), sharey=True)
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        found = spread(rows, measure)
        means, least, most = zip(*(found[name] for name in names), strict=True)
        bars = [
            [mean - low for mean, low in zip(means, least, strict=True)],
            [high - mean for mean, high in zip(means, most, strict=True)],
        ]
        axis.errorbar(means, range(len(names)), xerr=bars, fmt="o", capsize=3)
        axis.axvline(start[measure], color="grey", linewidth=0.8, label="checkpoint at the start")
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [f"{group}: {name}" for group, name in names], fontsize=8)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _sync(rows: Sequence[Row], start: Row, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 -- see above

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = zip(figure.subplots(1, 3), ("reward", "clicked independent", "seconds"), strict=True)
    syncs = {_key(row): row["syncs"] for row in rows}
    for axis, measure in panels:
        for key, (mean, least, most) in spread(rows, measure).items():
            axis.errorbar(syncs[key], mean, yerr=[[mean - least], [most - mean]], fmt="o", capsize=3)
            axis.annotate(key[1], (syncs[key], mean), fontsize=7, xytext=(4, 4), textcoords="offset points")
        if measure in start:
            axis.axhline(start[measure], color="grey", linewidth=0.8)
        axis.set(xscale="log", xlabel="syncs of the sampler", ylabel=MEASURES.get(measure, measure))
    figure.savefig(path, dpi=110)
