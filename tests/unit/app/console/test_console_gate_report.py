"""Reports of the gate, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.console.gate_report import read_report
from app.errors import CheckpointError

REPORTS = sorted((Path(__file__).parents[4] / "results" / "drill").glob("*/gate-*.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_reports_are_read(path: Path) -> None:
    report = read_report(path.read_bytes())
    assert report.verdict == ("PASS" if "recovered" in path.stem else "FAIL")
    assert report.kind == ("good" if "recovered" in path.stem else "bad")
    failed = {one.metric for one in report.decisions if one.state == "FAIL"}
    assert failed == set(report.caught_by)
    assert sum(report.counts.values()) == len(report.decisions) > 20
    assert [one.state for one in report.worst_first] == sorted(
        (one.state for one in report.decisions), key=["ERROR", "FAIL", "INCONCLUSIVE", "PASS"].index
    )


def test_there_are_reports_to_read() -> None:
    assert len(REPORTS) == 6


def test_one_with_a_verdict_alone_is_enough() -> None:
    report = read_report(b'{"verdict": "INCONCLUSIVE", "news": [1]}')
    assert (report.verdict, report.kind, report.decisions) == ("INCONCLUSIVE", "open", ())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"verdict": 3}', b'{"verdict": "PASS", "decisions": [{}]}', b"\xff"]
)
def test_what_is_no_report_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^gate\.json: "):
        read_report(content)
