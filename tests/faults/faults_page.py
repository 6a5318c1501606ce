"""The table of faults: `python tests/faults/faults_page.py` writes docs/faults.md.

What is broken and what is promised stands with each test; what was seen, in results/faults/faults.json.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEN, PAGE = ROOT / "results" / "faults" / "faults.json", ROOT / "docs" / "faults.md"
HEAD = """# Faults

What was broken, what is promised then, and what was seen. Above all: **no search fails because of the
rewriter** (where a replica is gone, the caller's retry at another one counts), **no event that was
acknowledged is lost**, and **no answer says what the checkpoint it names does not say**. Each row is a test
in `tests/faults`, on real processes and servers. `make test` runs them; `make faults` runs them with the
cases that take long, and writes this page.

Where searches are told of, a search backend has asked without pause while the fault went on, has reported a
click for each answer, and has judged every single answer and every event at the end. "Without a rewrite" are
answers with the original alone and a reason that means a failure: too late, or no engine.

Random and mutated requests: [results/fuzz](../results/fuzz/README.md), by `make fuzz`.

| broken | promised | seen | test |
|---|---|---|---|
"""


def declared() -> dict[str, tuple[str, str]]:
    """Each test of this folder, with what it breaks and what is promised; "" where it does not say."""
    found = {}
    for file in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = _fault(node)
                found[f"{file.name}::{node.name}"] = said.get("broken", ""), said.get("promised", "")
    return found


def _fault(node: ast.FunctionDef) -> dict[str, str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            return {word.arg or "": ast.literal_eval(word.value) for word in decorator.keywords}
    return {}


def page(found: dict[str, Any], rows: dict[str, tuple[str, str]]) -> str:
    """Render the table.

    Args:
        found: what `conftest.py` writes, by test.
        rows: as `declared` has them.
    """
    lines = [
        f"| {broken} | {promised} | {told(found[name])} | `{name.partition('::')[2]}` |"
        for name, (broken, promised) in rows.items()
    ]
    measured = "; ".join(sorted({row["measured"] for row in found.values()}))
    return f"{HEAD}{chr(10).join(lines)}\n\nMeasured on {measured}.\n"


def told(row: dict[str, Any]) -> str:
    """What was seen in all cases of a test, in words."""
    facts = [fact for fact in row["facts"] if "searches" in fact]
    outcomes = row["outcomes"]
    cases = sum(outcomes.values())
    words = ["as promised" if outcomes.keys() == {"passed"} else _count(outcomes)]
    if cases > 1:
        words[0] += f" in {cases} cases"
    if facts:
        total = {name: sum(fact[name] for fact in facts) for name in facts[0] if name != "note"}
        words.append(f"{total['searches']:,} searches, {total['failed']} failed, {total['wrong']} wrong")
        if total["retried"]:
            words.append(f"{total['retried']:,} answered by the other replica")
        if total["degraded"]:
            longest = max(fact["degraded_s"] for fact in facts)
            words.append(f"{total['degraded']:,} without a rewrite, {longest:g} s at a stretch at most")
        if total["acknowledged"]:
            words.append(f"{total['acknowledged']:,} events acknowledged, each counted once")
        if total["refused"]:
            words.append(f"{total['refused']:,} reports refused or unanswered, and sent again")
    words += dict.fromkeys(fact["note"] for fact in row["facts"] if "note" in fact)
    return "; ".join(words).replace("|", "\\|").replace("\n", " ")


def _count(outcomes: dict[str, int]) -> str:
    return ", ".join(f"**{number} {outcome}**" for outcome, number in sorted(outcomes.items()))


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(SEEN.read_text(encoding="utf-8")), declared()), encoding="utf-8")
