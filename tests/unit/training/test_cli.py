from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.cli import add_evaluate


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())
    args = parser.parse_args(["evaluate", *words])
    status: int = args.run(args)
    return status


@pytest.fixture
def folder(tmp_path: Path, write_jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(
        "data/corpus.jsonl", [{"_id": "d1", "text": "colour printer"}, {"_id": "d2", "text": "monitor"}]
    )
    write_jsonl("data/queries.jsonl", [{"_id": "q1", "text": "printer"}, {"_id": "q2", "text": "screen"}])
    (tmp_path / "data" / "qrels").mkdir()
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n"
    (tmp_path / "data" / "qrels" / "dev.tsv").write_text(qrels, encoding="utf-8")
    return Path("data")


def test_the_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'bm25s', 'ir_measures', 'yaml', 'matplotlib'} & sys.modules.keys()"
    code = f"import sys, training.cli, training.cli_search, training.cli_train; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluate_writes_its_report_and_prints_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", str(folder), "--split", "dev", "--json", "out/report.json") == 0
    report = json.loads(Path("out/report.json").read_text("utf-8"))
    found = {(row["retriever"], row["rewrite"]): row["ndcg@10"] for row in report["rows"]}
    assert found["bm25", "none"] == 0.5
    assert found["dense", "none"] == found["hybrid", "none"] == 1.0
    assert {rewrite for _, rewrite in found} == {"none", "alone", "parallel"}
    assert (report["data"], report["split"], report["typos"], report["queries"]) == ("data", "dev", None, 2)
    assert "dense     none               1.0000" in capsys.readouterr().out


def test_with_typos_the_oracle_is_the_clean_query(folder: Path) -> None:
    assert run("--data", str(folder), "--split", "dev", "--typos", "1", "--json", "report.json") == 0
    report = json.loads(Path("report.json").read_text("utf-8"))
    found = {(row["retriever"], row["rewrite"]): row["ndcg@10"] for row in report["rows"]}
    assert found["bm25", "none"] == 0.0
    assert found["bm25", "oracle"] == found["bm25", "oracle_parallel"] == 0.5


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data", "nowhere", "--split", "dev"], "no such file"),
        (["--data", "data", "--split", "test"], "no such file"),
        (["--data", "data", "--split", "dev", "--stages", "--arms", "finerank"], "`none` first"),
        (["--data", "data", "--split", "dev", "--stages", "--arms", "none", "all"], "`none` first"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert folder.exists()
    assert run(*words) == 2
    assert complaint in capsys.readouterr().err
