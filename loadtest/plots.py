"""The report's pictures, from load.json alone: each scenario over time, and the way to saturation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Told = Mapping[str, Any]
DPI = 80


def draw(told: Told, folder: Path) -> list[str]:
    """Draw what there is, as PNG; return the names of the files."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    measured = [one for one in told.get("scenarios", ()) if "windows" in one]
    names = []
    for one in measured:
        names.append(f"{one['name']}.png")
        _over_time(one, folder / names[-1])
        if one["name"] == "ramp":
            names.append("saturation.png")
            _saturation(one, folder / names[-1])
    return names


def _over_time(one: Told, path: Path) -> None:
    """Rates above, latencies in the middle, memory below; incidents and what is not judged are marked."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- as above

    figure, (rates, latencies, memory) = plt.subplots(
        3, 1, figsize=(8, 6.4), sharex=True, height_ratios=(2, 3, 1)
    )
    at = [window["at_s"] for window in one["windows"]]
    for name, colour in (("offered", "0.6"), ("answered", "C0"), ("shed", "C1"), ("failed", "C3")):
        rates.plot(at, _column(one["windows"], f"{name}_per_s"), color=colour, label=name)
    rates.set(ylabel="requests/s", title=f"{one['name']}: {one['verdict']}")
    for kind, colour in (("rewrite", "C0"), ("signals", "C2")):
        for percent, style in ((50, "-"), (99, ":")):
            values = _column(one["windows"], f"{kind}_p{percent}_ms")
            latencies.plot(at, values, style, color=colour, label=f"{kind} p{percent}")
    latencies.set(ylabel="ms from intended start", yscale="log")
    memory.plot([when for when, _ in one["memory"]], [value for _, value in one["memory"]], color="C4")
    memory.set(xlabel="s", ylabel="memory, MB")
    for axes in (rates, latencies, memory):
        axes.axvspan(0, one["warm_s"], color="0.92")
        for incident in one["incidents"]:
            axes.axvline(incident["start_s"], color="C3", linewidth=0.8)
    for incident in one["incidents"]:
        what = f" {incident['do']} {incident['to']}".rstrip()
        latencies.annotate(
            what, (incident["start_s"], 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=7
        )
    for axes in (rates, latencies):
        axes.legend(fontsize=7, loc="upper left", ncols=4)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _saturation(one: Told, path: Path) -> None:
    """What is answered well, of what is offered."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- as above

    steps = [step for step in one["steps"] if step["good_ratio"] is not None]
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(6, 5.6), sharex=True)
    offered = [step["intended_per_s"] for step in steps]
    upper.plot(offered, [step["good_ratio"] for step in steps], "o", color="C0")
    upper.set(ylabel="answered, nothing left out", ylim=(0, 1.05))
    for kind, colour in (("rewrite", "C0"), ("signals", "C2")):
        values = _column(steps, f"{kind}_p99_ms")
        lower.plot(offered, values, "o", color=colour, label=f"{kind} p99")
    lower.set(xlabel="journeys/s offered", ylabel="ms from intended start", yscale="log")
    for axes in (upper, lower):
        if one["saturation_per_s"]:
            axes.axvline(one["saturation_per_s"], color="C3", linewidth=0.8)
    lower.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _column(rows: Sequence[Told], name: str) -> list[float]:
    return [float("nan") if row[name] is None else row[name] for row in rows]
