"""The proof end to end as a page and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

Record = Mapping[str, Any]

SHOWN = (
    ("canary against stable", "all"),
    ("canary against the holdout", "all"),
    ("canary against the holdout", "impacted"),
)
NAMES = {"changed": "queries changed", "strict": "strict clicks", "clicks": "clicks"}
ARMS = ("holdout", "stable", "canary")
BOUNDS = {
    "killed": "from the kill switch until all replicas give the original",
    "back": "and until none does",
    "crash": "searches answered by a replica that is killed, and never counted",
    "share": "and as a share of what it had answered within one flush interval",
}
OUTCOMES = (
    *("rollout", "at", "searches until the end", "it ended", "failed"),
    *("another replica answered", "reports sent again", "users shown the canary"),
)
COMPARED = ("launch", "compared", "traffic", "metric", "treated", "control", "change", "interval")
SEEN = ("rollout", "arm", "searches", "rewritten", "nDCG@10", "queries changed", "clicks", "strict clicks")


def page(records: Sequence[Record], when: date) -> str:
    """Return the proof as Markdown."""
    rollouts = [one for one in records if "looks" in one]
    crashes = [crash for one in records for crash in one.get("crashes", ())]
    searches = sum(one.get("searches", 0) for one in records) + sum(one["answered"] for one in crashes)
    failed = sum(one["tally"]["failed"] for one in records if "tally" in one)
    failed += sum(one["failed"] for one in crashes)
    launches = [one for one in rollouts if one["name"].startswith("launch")]
    return f"""# Two launches and an incident, end to end

`make ab` writes this ({when.isoformat()}): {searches:,} searches over HTTP at two replicas and one store.
What people want is what human labels say. Each search asks the service, and each event is reported to it;
rankings are computed once. **{failed} searches failed.**

{_table(OUTCOMES, map(_told, rollouts))}

{_list(one for one in rollouts if one["faults"])}

What the launches did, by search, from what the service counted. The intervals hold at all looks, at 95 %.
Impacted are searches for which the checkpoint has a rewrite, shown or, in the holdout, not.

{_table(COMPARED, (row for one in launches for row in _compared(one)))}

What people saw, by labels (nDCG@10, with the 95 % interval over searches), and what they did, by search, as
they themselves count it.

{_table(SEEN, (row for one in rollouts for row in _seen(one)))}

![what was known of the goal](ab.png)

{_bounds(records)}
"""


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw what was known of the goal, and the canary's share, by searches, into a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 -- seconds to import, and only plots need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rollouts = [one for one in records if "looks" in one]
    figure, axes = plt.subplots(2, len(rollouts), figsize=(3.4 * len(rollouts), 5.5), squeeze=False)
    for (upper, lower), one in zip(axes.T, rollouts, strict=True):
        searches = [look["searches"] / 1000 for look in one["looks"]]
        known = [
            (at, look)
            for at, look in zip(searches, one["looks"], strict=True)
            if None not in (look["gain"], look["low"], look["high"])
        ]
        upper.axhline(0, color="black", linewidth=0.8)
        if known:
            at = [place for place, _ in known]
            low, gain, high = ([look[name] for _, look in known] for name in ("low", "gain", "high"))
            upper.fill_between(at, low, high, alpha=0.2, linewidth=0)
            upper.plot(at, gain)
        upper.set(title=one["name"], ylim=(-0.3, 0.3))
        lower.step(searches, [look["ratio"] for look in one["looks"]], where="post")
        lower.set(xlabel="thousands of searches", ylim=(0, 1.05))
    axes[0][0].set(ylabel="fewer queries changed (relative)")
    axes[1][0].set(ylabel="share of the canary")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bounds(records: Sequence[Record]) -> str:
    rows = []
    for one in records:
        if one["name"] == "bounds":
            for name, seconds in one["followed_s"].items():
                rows.append(
                    [BOUNDS[name], str(len(seconds)), f"{median(seconds):.2f} s", f"{max(seconds):.2f} s"]
                )
            lost = [crash["answered"] - crash["counted"] for crash in one["crashes"]]
            rows.append([BOUNDS["crash"], str(len(lost)), f"{median(lost):.0f}", f"{max(lost):.0f}"])
            shares = [n / crash["within_flush_s"] for n, crash in zip(lost, one["crashes"], strict=True)]
            rows.append([BOUNDS["share"], str(len(lost)), f"{median(shares):.0%}", f"{max(shares):.0%}"])
    return _table(("what is promised", "times", "median", "at most"), rows) if rows else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def _list(rollouts: Iterable[Record]) -> str:
    return "\n".join(f"- {one['name']}: {'; '.join(one['faults'])}" for one in rollouts)


def _told(one: Record) -> list[str]:
    tally, last = one["tally"], one["status"]["last"]
    over = last["state"] in {"promoted", "rolled_back"}
    ended = f"{last['state'].replace('_', ' ')}: {last['why']}" if over else "called off, undecided"
    numbers = [f"{tally[name]:,}" for name in ("failed", "retried", "resent", "exposed")]
    return [one["name"], ", ".join(one["stages"]), f"{one['searches']:,}", ended, *numbers]


def _compared(one: Record) -> list[list[str]]:
    return [
        [
            *(one["name"], found["pair"], found["traffic"], NAMES[found["metric"]]),
            *(_number(found["treated"]), _number(found["control"]), _percent(found["change"])),
            f"{_percent(found['low'])} to {_percent(found['high'])}",
        ]
        for wanted in SHOWN
        for found in one["status"]["comparisons"]
        if (found["pair"], found["traffic"]) == wanted and found["metric"] in NAMES
    ]


def _seen(one: Record) -> list[list[str]]:
    rows, tally = [], one["tally"]
    for arm in ARMS:
        searches = tally["searches"].get(arm, 0)
        if not searches:
            continue
        mean = tally["ndcg"][arm] / searches
        half = 1.96 * math.sqrt(max(0.0, tally["squares"][arm] / searches - mean**2) / searches)
        rates = [tally[name].get(arm, 0) / searches for name in ("changed", "clicks", "strict")]
        impacted = tally["impacted"].get(arm, 0) / searches
        told = [f"{searches:,}", f"{impacted:.0%}", f"{mean:.4f} ± {half:.4f}"]
        rows.append([one["name"], arm, *told, *(f"{rate:.4f}" for rate in rates)])
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:+.2%}"
