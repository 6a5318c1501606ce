"""The weekly cycle: killed at any step it goes on to the same end, and two of them never overlap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from loop_configs import loop_config
from small_checkpoint import write_checkpoint

from app.cli import main
from app.contracts.manifest import DataWindow
from app.errors import CheckpointError
from app.registry.place import Place
from app.registry.store import Registry
from training.cli_cycle import last_week
from training.config import LoopConfig, read_config
from training.cycle import Cycle, CycleConfig, CycleError, Steps, locked
from training.gate.window import WindowConfig

ROOT = Path(__file__).parents[3]
WINDOW = DataWindow.parse("2026-11-08/2026-11-15")
NOW = datetime(2026, 11, 16, tzinfo=UTC)
STEPS = (
    "before train",
    "after train",
    "before gate",
    "after gate",
    "before push",
    "after push",
    "after alias",
)


def config(folder: Path) -> CycleConfig:
    return CycleConfig(loop=loop_config(folder, name="week"), gate_ratio=0.25)


def registry_of(folder: Path) -> Registry:
    return Registry(Place.at(str(folder / "registry")))


class Told:
    """What the long steps were told; they do at once what takes hours."""

    def __init__(self, verdict: str = "PASS", dies: str = "") -> None:
        self.verdict, self.dies = verdict, dies
        self.loops: list[LoopConfig] = []
        self.windows: list[WindowConfig] = []

    def steps(self) -> Steps:
        return Steps(self.train, self.gate)

    def train(self, loop: LoopConfig, run_dir: Path, out: Path) -> None:
        del run_dir
        self.loops.append(loop)
        self.reach("before train")
        part = write_checkpoint(out.with_name("part"), checkpoint_id=loop.name, weights="trained")
        part.rename(out)
        self.reach("after train")

    def gate(
        self, candidate: Path, incumbent: Path, window: WindowConfig, policy: Path | None, folder: Path
    ) -> str:
        assert candidate.is_dir()
        assert incumbent.is_dir()
        assert policy is None
        self.windows.append(window)
        self.reach("before gate")
        folder.mkdir(exist_ok=True)
        rows = [{"metric": "judge", "limit": "goal", "bound": 0.0, "state": self.verdict, "reason": ""}]
        means = {"judge": {"candidate": 0.5, "incumbent": None}}
        report = {"verdict": self.verdict, "decisions": rows, "means": means}
        (folder / "gate.json").write_text(json.dumps(report))
        self.reach("after gate")
        return self.verdict

    def reach(self, step: str) -> None:
        if step == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def stable(tmp_path: Path) -> str:
    registry = registry_of(tmp_path)
    digest = registry.push(write_checkpoint(tmp_path / "stable", checkpoint_id="first"))
    registry.aliases.move("stable", digest, seen=None, who="ann", why="the first", when=NOW)
    return digest


def cycle(folder: Path, told: Told, key: Path | None = None) -> Cycle:
    return Cycle(config(folder), WINDOW, registry_of(folder), folder / "week", told.steps(), key=key)


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private key, and the file of signers that has its public one."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    public.write_bytes(
        key.public_key().public_bytes(form[0], serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.mark.usefixtures("stable")
def test_what_passes_becomes_the_candidate(tmp_path: Path, stable: str) -> None:
    told = Told()
    assert cycle(tmp_path, told).run() == "PASS"
    registry = registry_of(tmp_path)
    candidate = registry.stored(registry.resolve("candidate"))
    assert candidate.manifest.checkpoint_id == "week-20261115"
    assert json.loads(registry.gate_report(candidate) or b"")["verdict"] == "PASS"
    assert registry.resolve("stable") == stable  # to promote is the rollout's
    (loop,), (window,) = told.loops, told.windows
    turn = datetime(2026, 11, 13, 6, tzinfo=UTC)
    assert (loop.since, loop.until) == (WINDOW.first, turn)
    assert (window.since, window.until) == (turn, WINDOW.last)
    assert loop.checkpoint == window.checkpoint == tmp_path / "week" / "incumbent"
    summary = (tmp_path / "week" / "summary.md").read_text()
    assert "# PASS: week-20261115" in summary
    assert "`candidate` points to it" in summary
    assert "| judge | 0.5000 |  |" in summary
    assert cycle(tmp_path, told).run() == "PASS"
    assert len(told.loops) == len(told.windows) == len(registry.aliases.history("candidate")) == 1


@pytest.mark.usefixtures("stable")
@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "ERROR"])
def test_what_does_not_pass_is_kept_and_no_candidate(tmp_path: Path, verdict: str) -> None:
    assert cycle(tmp_path, Told(verdict)).run() == verdict
    registry = registry_of(tmp_path)
    assert len(registry.digests()) == 2
    assert registry.aliases.current("candidate") is None
    summary = (tmp_path / "week" / "summary.md").read_text()
    assert f"- judge (goal 0): {verdict}" in summary
    assert "No alias was moved" in summary


@pytest.mark.usefixtures("stable")
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_what_passes_is_signed_and_nothing_else(tmp_path: Path, verdict: str) -> None:
    """A signature says that it came from here, and has passed."""
    private, public = keys(tmp_path, "cycle")
    assert cycle(tmp_path, Told(verdict), private).run() == verdict
    strict = Registry(Place.at(str(tmp_path / "registry")), signers=public)
    digest = json.loads((tmp_path / "week" / "push.json").read_text())
    if verdict == "PASS":
        assert strict.pull(digest, tmp_path / "pulled").id == "week-20261115"
    else:
        with pytest.raises(CheckpointError, match="not signed"):
            strict.pull(digest, tmp_path / "pulled")
    written = [file for file in (tmp_path / "week").rglob("*") if file.is_file()]
    assert not [file for file in written if b"PRIVATE" in file.read_bytes()]


@pytest.mark.usefixtures("stable")
def test_what_was_not_signed_is_when_the_key_is_there(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "cycle")
    cycle(tmp_path, Told()).run()
    again = Told()
    cycle(tmp_path, again, private).run()
    assert not again.loops
    strict = Registry(Place.at(str(tmp_path / "registry")), signers=public)
    assert strict.pull(strict.resolve("candidate"), tmp_path / "pulled")


def test_a_key_that_nobody_would_believe_is_refused_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, _ = keys(tmp_path, "ours")
    _, others = keys(tmp_path, "theirs")
    words = ["cycle", "--config", "training/configs/cycle.toml", "--window", "2026-11-08/2026-11-15"]
    words += ["--runs", str(tmp_path / "runs"), "--registry", str(tmp_path / "registry"), "--sign-with"]
    assert main([*words, str(others)]) == 2
    assert "no private key in PEM" in capsys.readouterr().err
    monkeypatch.setenv("REWRITE_SIGNERS", str(others))
    assert main([*words, str(private)]) == 2
    said = capsys.readouterr().err
    assert "not signed by any of the 1" in said
    assert "PRIVATE" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("stable")
@pytest.mark.parametrize("step", STEPS)
def test_one_that_is_killed_goes_on(tmp_path: Path, step: str) -> None:
    """By SIGKILL, in a process of its own; what a step had done before is not done again."""
    code = (
        "import sys; from pathlib import Path; import test_cycle\n"
        "from app.registry.store import Registry; from app.registry.aliases import Aliases\n"
        "folder, step = Path(sys.argv[1]), sys.argv[2]\n"
        "told = test_cycle.Told(dies=step)\n"
        "push, move = Registry.push, Aliases.move\n"
        "def pushed(*a, **k):\n"
        "    told.reach('before push'); found = push(*a, **k); told.reach('after push'); return found\n"
        "def moved(*a, **k):\n"
        "    found = move(*a, **k); told.reach('after alias'); return found\n"
        "Registry.push, Aliases.move = pushed, moved\n"
        "test_cycle.cycle(folder, told).run()\n"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", here)))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), step],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = Told()
    assert cycle(tmp_path, told).run() == "PASS"
    assert (len(told.loops), len(told.windows)) == (
        int(step == "before train"),
        int(STEPS.index(step) <= STEPS.index("after gate")),
    )
    registry = registry_of(tmp_path)
    assert len(registry.digests()) == 2
    assert len(registry.aliases.history("candidate")) == 1
    assert registry.stored(registry.resolve("candidate")).manifest.checkpoint_id == "week-20261115"


@pytest.mark.usefixtures("stable")
def test_two_cycles_never_overlap(tmp_path: Path) -> None:
    (tmp_path / "week").mkdir()
    with locked(tmp_path / "week" / "lock"), pytest.raises(CycleError, match="another cycle is at work"):
        cycle(tmp_path, Told()).run()
    assert cycle(tmp_path, Told()).run() == "PASS"  # the lock went with its holder


@pytest.mark.usefixtures("stable")
def test_a_candidate_is_none_where_stable_has_moved_meanwhile(tmp_path: Path) -> None:
    class Slow(Told):
        def gate(self, *args: Any) -> str:
            registry = registry_of(tmp_path)
            other = registry.push(write_checkpoint(tmp_path / "other", weights="other"))
            seen = registry.aliases.current("stable")
            registry.aliases.move("stable", other, seen=seen, who="bo", why="a hurry", when=NOW)
            return super().gate(*args)

    with pytest.raises(CycleError, match="judged against"):
        cycle(tmp_path, Slow()).run()
    assert registry_of(tmp_path).aliases.current("candidate") is None


def test_without_stable_there_is_nothing_to_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cycle", "--config", "training/configs/cycle.toml", "--window", "2026-11-08/2026-11-15"]
    words += ["--runs", str(tmp_path / "runs"), "--registry", str(tmp_path / "registry")]
    assert main(words) == 2
    assert "'stable': no such checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("stable")
def test_a_folder_of_another_window_is_not_gone_on_with(tmp_path: Path) -> None:
    """Both have the name of their last day; the verdict that is there is not about the other one."""
    told = Told()
    assert cycle(tmp_path, told).run() == "PASS"
    other = DataWindow(first=WINDOW.first, last=WINDOW.last + timedelta(hours=12))
    assert config(tmp_path).name_of(other) == config(tmp_path).name_of(WINDOW)
    again = Cycle(config(tmp_path), other, registry_of(tmp_path), tmp_path / "week", told.steps())
    with pytest.raises(CycleError, match=r"of the window 2026-11-08.*give it another folder"):
        again.run()
    assert cycle(tmp_path, told).run() == "PASS"


def test_a_registry_out_of_reach_is_worth_another_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which its exit status says: k8s/base/cycle.yaml tries again after 1, and not after 2."""
    (tmp_path / "registry").touch()
    words = ["cycle", "--config", "training/configs/cycle.toml", "--window", "2026-11-08/2026-11-15"]
    words += ["--runs", str(tmp_path / "runs"), "--registry", str(tmp_path / "registry")]
    assert main(words) == 1
    assert "NotADirectoryError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--workers", "2"], "are for --engine ray"), (["--engine", "ray", "--workers", "0"], "at least 1")],
)
def test_workers_are_rays_here_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    command = ["cycle", "--config", "training/configs/cycle.toml", "--window", "last-week"]
    command += ["--runs", str(tmp_path / "runs"), "--registry", str(tmp_path / "registry")]
    assert main([*command, *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["2026-11-08", "2026-11-15/2026-11-08", "monday/sunday", "a/b/c"])
def test_a_window_is_two_days_in_order(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cycle", "--config", "training/configs/cycle.toml", "--window", text]) == 2
    assert "is no window such as" in capsys.readouterr().err
    assert DataWindow.parse("2026-11-08T12:00:00+02:00/2026-11-15").last == WINDOW.last


def test_the_configuration_is_read() -> None:
    given = read_config(ROOT / "training" / "configs" / "cycle.toml", CycleConfig)
    assert (given.loop.name, given.gate_ratio) == ("week", 0.3)


@pytest.mark.parametrize(
    ("now", "week"),
    [
        ("2026-11-22T23:59:59+00:00", "2026-11-09/2026-11-16"),  # a Sunday
        ("2026-11-23T00:00:00+00:00", "2026-11-16/2026-11-23"),
        ("2026-11-29T12:00:00+00:00", "2026-11-16/2026-11-23"),
    ],
)
def test_last_week_is_the_same_all_week_long(now: str, week: str) -> None:
    assert last_week(datetime.fromisoformat(now)) == week
