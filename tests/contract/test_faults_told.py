"""docs/faults.md has a row for each test of a fault, no other, and says what the last run has seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "faults"
sys.path.insert(0, str(FOLDER))

from faults_page import PAGE, SEEN, declared, page, told  # noqa: E402 -- beside the tests that it tells of

RENDER = "run: python tests/faults/faults_page.py"


def test_each_test_says_what_it_breaks_and_what_is_promised() -> None:
    rows = declared()
    assert len(rows) > 20
    assert [name for name, said in rows.items() if not all(said)] == []


def test_each_test_has_a_row_and_each_row_a_test() -> None:
    found = json.loads(SEEN.read_text(encoding="utf-8"))
    assert found.keys() == declared().keys(), "run: make faults"
    assert PAGE.read_text(encoding="utf-8") == page(found, declared()), (
        "run: python tests/faults/faults_page.py"
    )


def test_what_was_promised_is_what_was_seen() -> None:
    found = json.loads(SEEN.read_text(encoding="utf-8"))
    assert {name for name, row in found.items() if row["outcomes"].keys() != {"passed"}} == set()


def test_a_failure_is_told() -> None:
    assert (
        told({"outcomes": {"passed": 2, "failed": 1}, "facts": []}) == "**1 failed**, **2 passed** in 3 cases"
    )
    one = {"searches": 10, "failed": 0, "wrong": 0, "retried": 3, "degraded": 2, "degraded_s": 1.5,
           "acknowledged": 9, "refused": 0, "note": "a | b"}  # fmt: skip
    assert told({"outcomes": {"passed": 1}, "facts": [one, {**one, "degraded_s": 0.5}]}) == (
        "as promised; 20 searches, 0 failed, 0 wrong; 6 answered by the other replica; "
        "4 without a rewrite, 1.5 s at a stretch at most; 18 events acknowledged, each counted once; "
        "a \\| b"
    )
