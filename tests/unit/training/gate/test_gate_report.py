"""The report: all that was decided, in both files; and the command that writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fakes import completion
from small_checkpoint import write_checkpoint

import training.gate.report
from app.cli import main
from app.contracts.manifest import DataWindow
from app.registry.checkpoint import MAX_MANIFEST_BYTES, load_checkpoint
from app.relevance.base import Content
from training.cli_gate import EXIT, in_words
from training.datasets.instances import Instance, Seen
from training.gate.gather import Answers
from training.gate.labelled import Shown
from training.gate.policy import Policy
from training.gate.report import as_record, examples_of, write_report
from training.gate.run import Findings
from training.gate.verdict import Measurement, verdict_on
from training.gate.window import Window
from training.rating import RatedCompletion
from training.reward import Evidence, Reward

QUERIES = 60
RNG = np.random.default_rng(4)
SPAN = DataWindow(first=datetime(2026, 11, 8, tzinfo=UTC), last=datetime(2026, 11, 15, tzinfo=UTC))


def policy() -> Policy:
    metrics = {
        "r_main": {"direction": "higher", "margin": 0.05},
        "judge": {"direction": "higher", "margin": 0.05},
        "tokens": {"direction": "either", "margin": 0.5},
    }
    return Policy.model_validate({"window": QUERIES, "goal": {"metrics": ["judge"]}, "metrics": metrics})


def rated(value: float) -> RatedCompletion:
    return RatedCompletion(completion("x"), value, Reward(value, value, 0, 0, None), Evidence(0.5, 0.2, 0.1))


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    """A candidate that pleases its reward, says ever more, and that the judge likes less."""
    noise = RNG.normal(0, 0.1, QUERIES)
    measured = {
        "r_main": Measurement(noise + 1.0, noise),
        "judge": Measurement(noise - 0.5, noise),
        "tokens": Measurement(noise + 9.0, noise + 4.0),
        "entropy": Measurement(abs(noise), abs(noise)),
    }
    instances = tuple(
        Instance(f"<query> {n}", (Seen(Content("nurse"), 1.0),), (), ()) for n in range(QUERIES)
    )
    new, old = (
        Answers(
            [completion(f"{text} {n}") for n in range(QUERIES)],
            [],
            [rated(v) for v in values],
        )
        for text, values in (("nurse & more", noise - 0.5), ("nurse", noise))
    )
    return Findings(
        load_checkpoint(write_checkpoint(tmp_path / "new", checkpoint_id="week-12")),
        load_checkpoint(write_checkpoint(tmp_path / "old", checkpoint_id="week-11", weights="x")),
        Window(instances, (), SPAN),
        measured,
        (new, old),
        (),
        verdict_on(measured, policy()),
    )


def test_both_files_say_what_was_decided(findings: Findings, tmp_path: Path) -> None:
    path = write_report(findings, policy(), tmp_path / "out")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < MAX_MANIFEST_BYTES
    assert (record["verdict"], record["caught_by"]) == ("FAIL", ["judge", "tokens"])
    assert record["candidate"]["id"] == "week-12"
    assert record["candidate"]["address"] != record["incumbent"]["address"]
    assert record["window"]["queries"] == QUERIES
    assert {row["metric"] for row in record["decisions"]} == {"r_main", "judge", "tokens"}
    assert (
        record["means"]["entropy"]["queries"] == QUERIES
    )  # no rule asks for it, and it is told all the same
    assert Policy.model_validate(record["policy"]) == policy()
    page = path.with_name("gate.html").read_text(encoding="utf-8")
    assert "week-12 against week-11" in page
    assert "Caught by <strong>judge, tokens</strong>" in page
    assert page.count("<svg") == 2
    assert "&lt;query&gt; 3" in page
    assert "<query>" not in page
    assert page.count("nurse &amp; more") == 20  # of losses; there is no win


def test_labelled_queries_are_shown_with_both_rankings(findings: Findings, tmp_path: Path) -> None:
    shown = Shown("icu rn", ("nurse", ""), (0.9, 0.2), ((("ward nurse", 2),), (("welder", 0),)))
    labelled = Findings(
        findings.candidate,
        findings.incumbent,
        findings.window,
        findings.measured,
        findings.answers,
        (shown,),
        findings.verdict,
    )
    (example,) = examples_of(labelled)
    assert (example.gain, example.unit) == (pytest.approx(0.7), "nDCG@10")
    assert example.rankings == ([("ward nurse", True)], [("welder", False)])
    page = (
        write_report(labelled, policy(), tmp_path / "out").with_name("gate.html").read_text(encoding="utf-8")
    )
    assert '<li class="right">ward nurse</li>' in page
    assert "(nothing)" in page


def test_an_error_is_told_without_numbers(findings: Findings) -> None:
    measured = {"r_main": findings.measured["r_main"], "judge": findings.measured["judge"]}
    verdict = verdict_on(measured, policy(), problems=["the window is old"])
    told = in_words(verdict)
    assert told.startswith("ERROR\nthe window is old\n")
    assert "tokens (margin 0.5): not measured" in told
    found = Findings(
        findings.candidate, findings.incumbent, findings.window, measured, findings.answers, (), verdict
    )
    (row,) = [one for one in as_record(found, policy())["decisions"] if one["metric"] == "tokens"]
    assert (row["candidate"], row["slack"], row["p_pass"], row["p_fail"]) == (None, None, None, None)


def test_each_verdict_has_its_exit_status(
    findings: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(set(EXIT.values()) | {1, 2}) == len(EXIT) + 2
    window, given = tmp_path / "window.toml", tmp_path / "policy.toml"
    window.write_text(
        f'seed = 1\ndata_dir = "{tmp_path}"\ncheckpoint = "{tmp_path}"\nrelevance = "{tmp_path}"\n'
        f'[[logs]]\ncorpus = "{tmp_path}"\nevents = ["{tmp_path}"]\n'
    )
    given.write_text(
        'window = 60\n[goal]\nmetrics = ["judge"]\n[metrics.judge]\ndirection = "higher"\nmargin = 0.05\n'
    )
    monkeypatch.setattr(training.gate.report, "run", lambda *_, **__: findings)
    monkeypatch.setattr(training.gate.report, "read_window", lambda *_, **__: findings.window)
    words = ["gate", str(findings.candidate.path), "--against", str(findings.incumbent.path)]
    words += ["--data", str(window), "--policy", str(given), "--out", str(tmp_path / "out")]
    assert main(words) == EXIT["FAIL"] == 3
    out = capsys.readouterr().out
    assert "FAIL          judge (margin 0.05): candidate" in out
    assert str(tmp_path / "out" / "gate.html") in out
    assert main([*words, "--policy", str(tmp_path / "none.toml")]) == 2
    assert (
        main(["gate", "nowhere", "--against", "x", "--data", str(window), "--registry", str(tmp_path)]) == 2
    )
    assert "no such checkpoint" in capsys.readouterr().err
