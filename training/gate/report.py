"""The report: `gate.json` for machines, which the manifest names by its digest, `gate.html` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from app.contracts.manifest import GATE_REPORT_NAME, MANIFEST_NAME, address_of
from app.registry.checkpoint import Checkpoint
from training.gate.evidence import EVIDENCE, save_evidence
from training.gate.plots import distributions_svg, gains_svg
from training.gate.policy import Policy
from training.gate.run import Findings, run
from training.gate.statistics import Floats
from training.gate.verdict import Decision, Measurement, State, Verdict
from training.gate.window import WindowConfig, read_window
from training.loop import write_whole

REPORT_VERSION = 1
EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Example:
    """One query as both checkpoints answer it: what is shown of wins and losses.

    Args:
        query: as it was typed.
        rewrites: first one of the candidate and of the incumbent.
        gain: of the candidate, in `unit`.
        rankings: first documents with each, as (text, whether it is right).
        unit: what the gain is measured in.
    """

    query: str
    rewrites: tuple[str, str]
    gain: float
    rankings: tuple[Sequence[tuple[str, bool]], Sequence[tuple[str, bool]]]
    unit: str


def gate(candidate: Path, incumbent: Path, config: WindowConfig, policy: Policy, folder: Path) -> Verdict:
    """Read the window, judge, and write the report into `folder`; see `training.gate.run.run`."""
    window = read_window(config, folder, most=policy.window)
    findings = run(candidate, incumbent, window, config, policy)
    write_report(findings, policy, folder)
    return findings.verdict


def write_report(findings: Findings, policy: Policy, folder: Path) -> Path:
    """Write both files into `folder`; return the path of `gate.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    record = as_record(findings, policy)
    write_whole(folder / "gate.html", as_page(findings, record))
    path = folder / GATE_REPORT_NAME
    save_evidence(findings.measured, folder / EVIDENCE)
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def as_record(findings: Findings, policy: Policy) -> dict[str, Any]:
    """Return what `gate.json` holds."""
    verdict, window = findings.verdict, findings.window
    return {
        "version": REPORT_VERSION,
        "verdict": verdict.state.name,
        "caught_by": verdict.caught_by,
        "problems": list(verdict.problems),
        "candidate": _named(findings.candidate),
        "incumbent": _named(findings.incumbent),
        "window": {
            "first": window.span.first.isoformat(),
            "last": window.span.last.isoformat(),
            "queries": len(window.instances),
            "labelled": len(findings.shown),
        },
        "means": {name: _means(measured) for name, measured in findings.measured.items()},
        "decisions": [_row(one) for one in verdict.decisions],
        "policy": policy.model_dump(mode="json"),
    }


def as_page(findings: Findings, record: Mapping[str, Any]) -> str:
    """Return what `gate.html` shows: the verdict and why, plots, and the largest wins and losses."""
    pages = Environment(
        loader=PackageLoader("training.gate", "pages"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    examples = sorted(examples_of(findings), key=lambda one: -one.gain)
    found = findings.measured
    return pages.get_template("gate.html").render(
        record=record,
        decisions=sorted(record["decisions"], key=lambda row: -State[row["state"]]),
        gains=gains_svg(found["r_main"], found["judge"]),
        distributions=distributions_svg(
            {name: found[name] for name in ("tokens", "entropy") if name in found}
        ),
        wins=[one for one in examples[:EXAMPLES] if one.gain > 0],
        losses=[one for one in reversed(examples[-EXAMPLES:]) if one.gain < 0],
    )


def examples_of(findings: Findings) -> list[Example]:
    """Return the labelled queries by nDCG@10; where there are none, the window's by the judge."""
    if findings.shown:
        return [
            Example(
                one.query,
                one.rewrites,
                one.gain,
                (_right(one.rankings[0]), _right(one.rankings[1])),
                "nDCG@10",
            )
            for one in findings.shown
        ]
    new, old = findings.answers
    return [
        Example(
            instance.query,
            (one.text.strip(), other.text.strip()),
            judged.terms.ranking - before.terms.ranking,
            ((), ()),
            "nats, by the judge",
        )
        for instance, one, other, judged, before in zip(
            findings.window.instances, new.said, old.said, new.judged, old.judged, strict=True
        )
    ]


def _right(ranking: Sequence[tuple[str, int]]) -> list[tuple[str, bool]]:
    return [(text, grade > 0) for text, grade in ranking]


def _named(checkpoint: Checkpoint) -> dict[str, str]:
    manifest = (checkpoint.path / MANIFEST_NAME).read_bytes()
    return {
        "id": checkpoint.id,
        "address": address_of(manifest),
        "weights_digest": checkpoint.weights_digest,
    }


def _means(measured: Measurement) -> dict[str, float | int | None]:
    """Of both, over the queries that each has: NaN is no value."""
    return {
        "queries": int(measured.candidate.size),
        "candidate": _mean(measured.candidate),
        "incumbent": None if measured.incumbent is None else _mean(measured.incumbent),
    }


def _mean(values: Floats) -> float | None:
    kept = values[~np.isnan(values)]
    return round(float(kept.mean()), 6) if kept.size else None


def _row(decision: Decision) -> dict[str, Any]:
    slack = decision.slack
    return {
        "metric": decision.metric,
        "limit": decision.limit,
        "state": decision.state.name,
        "bound": decision.bound,
        "candidate": decision.candidate,
        "incumbent": decision.incumbent,
        "slack": None if slack is None else slack.mean,
        "slack_interval": None if slack is None else [slack.low, slack.high],
        "p_pass": None if slack is None else slack.p_above,
        "p_fail": None if slack is None else slack.p_below,
        "queries": None if slack is None else slack.queries,
        "needed": decision.needed,
        "reason": decision.reason,
    }
