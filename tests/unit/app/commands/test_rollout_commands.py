"""`corewrite rollout ...`: the store at the terminal."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from small_checkpoint import write_checkpoint

from app.cli import main
from app.commands.rollout import add_rollout
from app.rollout import LAUNCH
from app.rollout.assignment import BUCKETS
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import Cell
from app.rollout.plan import read_plan

PLAN = """
prepare_s = 0.0
[[steps]]
ratio = 0.01
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "strict"
better = "higher"
margin = 0.02
"""
WHY = ("--why", "because", "--who", "ann")


class Terminal:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        """Run `corewrite WORDS`; what it prints, or says where it fails."""
        assert main([*map(str, words)]) == status
        out, err = self._capsys.readouterr()
        return err if status and not out else out

    def rollout(self, *words: object, status: int = 0) -> str:
        return self("rollout", *words, status=status)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """With a registry that has a checkpoint, `candidate`, which has passed the gate."""
    monkeypatch.setenv("REWRITE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("REWRITE_ROLLOUTS", f"sqlite:///{tmp_path / 'rollouts.db'}")
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "gate.json").write_text('{"verdict": "PASS"}')
    terminal = Terminal(tmp_path, capsys)
    terminal(
        "checkpoints", "import", write_checkpoint(tmp_path / "one"), "--gate-report", tmp_path / "gate.json"
    )
    terminal("checkpoints", "alias", "candidate", "test-1", "--why", "passed")
    return terminal


def started(run: Terminal) -> str:
    return run.rollout("start", "candidate", "--plan", run.folder / "plan.toml", "--name", "autumn", *WHY)


def test_a_rollout_at_the_terminal(run: Terminal) -> None:
    assert "no rollout yet" in run.rollout("status")
    told = started(run)
    assert "autumn: preparing, step 1 of 2\n" in told
    assert "canary: 0.00% of the clients" in told
    assert "by ann: because" in told
    assert "stable: what replicas are set to" in told
    back = run.rollout("rollback", *WHY)
    assert "autumn: rolled_back" in back
    assert "verdict: - (it is over)" in back
    lines = run.rollout("history").splitlines()
    assert [line.split()[1:3] for line in lines] == [["autumn", "preparing"], ["autumn", "rolled_back"]]
    assert [json.loads(line)["order"] for line in run.rollout("history", "--json").splitlines()] == [
        "start",
        "rollback",
    ]


def test_what_is_known_is_told(run: Terminal) -> None:
    """Every bucket has searched 10 times, and every second one has changed 3 queries."""
    started(run)
    store = Database(f"sqlite:///{run.folder / 'rollouts.db'}")
    cells = {
        Cell(1, 0, impacted=False, bucket=bucket): np.array([10.0, 3.0 * (bucket % 2), 0, 0, 0, 0])
        for bucket in range(BUCKETS)
    }
    CountStore(store).take({}, cells, datetime.now(UTC))
    store.close()
    told = run.rollout("status")
    assert "canary: 1000 searches" in told
    (line,) = [line for line in told.splitlines() if "canary against stable" in line]
    assert re.fullmatch(
        r"  canary against stable, all searches: changed 0\.1\d{3} for 0\.1\d{3}, "
        r"[+-]0\.\d{4} \(relative; -0\.\d{4} to \+0\.\d{4}\)",
        line,
    )


def test_there_is_a_plan_to_begin_with(run: Terminal) -> None:
    told = json.loads(run.rollout("start", "candidate", "--json", *WHY))
    assert told["rollout"]["steps"] == [0.01, 0.05, 0.25, 0.5, 1.0]
    assert read_plan(LAUNCH.read_text(encoding="utf-8")).goal.metric == "changed"


def test_for_machines_it_is_json(run: Terminal) -> None:
    started(run)
    status = json.loads(run.rollout("status", "--json"))
    assert (status["rollout"]["name"], status["rollout"]["last"]["state"]) == ("autumn", "preparing")
    assert status["rollout"]["steps"] == [0.01, 1.0]
    assert [one["metric"] for one in status["rollout"]["verdict"]["findings"]] == ["changed", "strict"]


def test_the_kill_switch_at_the_terminal(run: Terminal) -> None:
    assert "KILLED" in run.rollout("kill", *WHY)
    assert "by ann: because" in run.rollout("status")
    assert "KILLED" not in run.rollout("kill", "--off", *WHY)
    lines = run.rollout("history").splitlines()
    assert [line[19:] for line in lines] == [
        "  everybody  killed  ann: because",
        "  everybody  not killed  ann: because",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause", *WHY), "there is no live rollout to pause"),
        (("start", "nothing", "--plan", "{folder}/plan.toml", *WHY), "nothing"),
        (("start", "candidate", "--plan", "{folder}/none.toml", *WHY), "none.toml"),
        (("start", "candidate", "--plan", "{folder}/gate.json", *WHY), "plan"),
        (("start", "candidate", "--plan", "{folder}/plan.toml", "--name", "a b", *WHY), "name 'a b'"),
    ],
)
def test_what_cannot_be_done_is_said_to_be_so(run: Terminal, words: tuple[str, ...], says: str) -> None:
    said = run.rollout(*(word.format(folder=run.folder) for word in words), status=2)
    assert says in said


def test_only_what_has_passed_the_gate_moves_on(run: Terminal) -> None:
    run("checkpoints", "import", write_checkpoint(run.folder / "two", checkpoint_id="test-2"))
    asked = ("start", "test-2", "--plan", run.folder / "plan.toml", *WHY)
    assert "no verdict of the gate, and only PASS moves on" in run.rollout(*asked, status=2)
    assert "preparing" in run.rollout(*asked, "--ungated")


def test_without_a_store_it_says_which_setting(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWRITE_ROLLOUTS")
    assert "set REWRITE_ROLLOUTS" in run.rollout("status", status=2)


def test_the_command_is_an_entry_point() -> None:
    from importlib.metadata import entry_points  # noqa: PLC0415 -- the one thing that is tested

    (point,) = (one for one in entry_points(group="corewrite.commands") if one.name == "rollout")
    assert point.load() is add_rollout
