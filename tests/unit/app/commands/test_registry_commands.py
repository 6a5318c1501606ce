"""`corewrite checkpoints ...`: the registry at the terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_checkpoint import write_checkpoint

from app.cli import main
from app.registry.checkpoint import DEFAULT_CHECKPOINT, MAX_MANIFEST_BYTES, load_checkpoint


class Terminal:
    def __init__(self, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.registry, self._capsys = registry, capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        """Run `corewrite checkpoints WORDS`; what it prints, or says where it fails."""
        assert main(["checkpoints", *map(str, words)]) == status
        out, err = self._capsys.readouterr()
        return err if status and not out else out


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("REWRITE_REGISTRY", str(tmp_path / "registry"))
    return Terminal(tmp_path / "registry", capsys)


def test_a_checkpoint_s_life(run: Terminal, tmp_path: Path) -> None:
    report = tmp_path / "gate.json"
    report.write_text('{"verdict": "PASS"}')
    first = run("import", write_checkpoint(tmp_path / "one")).strip()
    run("alias", "stable", "test-1", "--why", "the first one", "--who", "ann")
    child = write_checkpoint(tmp_path / "two", checkpoint_id="test-2", parent=first)
    second = run("import", child, "--gate-report", report).strip()
    run("alias", "stable", second[:10], "--why", "passed", "--who", "bo", "--expect", "test-1")
    rows = [line.split() for line in run("list").splitlines()]
    assert [(row[0], row[1], row[6], row[7:]) for row in rows] == [
        (first[:12], "test-1", "-", []),
        (second[:12], "test-2", "PASS", ["stable"]),
    ]
    assert [json.loads(line)["aliases"] for line in run("list", "--json").splitlines()] == [[], ["stable"]]
    shown = run("show", "stable")
    assert "lineage  test-2 < test-1\n" in shown
    assert "gate     PASS\n" in shown
    assert json.loads(run("show", "stable", "--json"))["parent"] == first
    trail = run("alias", "stable").splitlines()
    assert [line.split("  ")[1:] for line in trail] == [
        [f"nothing -> {first[:12]}", "ann: the first one"],
        [f"{first[:12]} -> {second[:12]}", "bo: passed"],
    ]
    assert run("verify").count("as its address and manifest say") == 2
    assert "verified" in run("pull", "stable", tmp_path / "served")
    assert load_checkpoint(tmp_path / "served").id == "test-2"
    assert run("gc", "--unused-days", "0") == f"would remove {first}\n"
    assert run("gc", "--unused-days", "0", "--really") == f"removed {first}\n"
    assert f"lineage  test-2 < {first[:12]} (not here)\n" in run("show", "test-2")


def test_what_is_altered_is_found_beside_what_is_not(run: Terminal, tmp_path: Path) -> None:
    good = run("import", write_checkpoint(tmp_path / "good")).strip()
    bad = run("import", write_checkpoint(tmp_path / "bad", weights="x")).strip()
    (run.registry / "checkpoints" / bad / "config.json").write_text("x")
    said = run("verify", status=2).splitlines()
    assert {line[:12]: "refused" in line for line in said} == {good[:12]: False, bad[:12]: True}
    assert "refused" not in run("verify", good)
    (run.registry / "checkpoints" / bad / "manifest.json").write_text("x" * (MAX_MANIFEST_BYTES + 1))
    said = run("verify", status=2).splitlines()
    assert {line[:12]: "refused" in line for line in said} == {good[:12]: False, bad[:12]: True}
    assert run("list", status=2).split()[0] == good[:12]


def test_a_model_folder_is_imported_by_name(run: Terminal, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(DEFAULT_CHECKPOINT / name, model)
    assert "--id" in run("import", model, status=2)
    parent = run("import", DEFAULT_CHECKPOINT).strip()
    run("import", model, "--id", "mine", "--parent", "default", "--learnt", "2026-11-08/2026-11-15")
    manifest = json.loads(run("show", "mine", "--json"))
    assert (manifest["parent"], manifest["data_window"]["last"]) == (parent, "2026-11-15T00:00:00Z")
    assert "data     2026-11-08 to 2026-11-15\n" in run("show", "mine")
    assert "no window such as" in run("import", model, "--id", "x", "--learnt", "monday", status=2)
    assert "its manifest says" in run("import", DEFAULT_CHECKPOINT, "--id", "mine", status=2)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("show", "nightly"), "no such checkpoint"),
        (("alias", "stable", "nightly"), "--why"),
        (("alias", "stable", "nightly", "--why", "x"), "no such checkpoint"),
        (("alias", "stable", "test-1", "--why", "x", "--expect", "test-1"), "points to nothing"),
        (("alias", "No/Alias"), "no alias"),
    ],
)
def test_a_mistake_is_explained(run: Terminal, tmp_path: Path, words: tuple[str, ...], match: str) -> None:
    run("import", write_checkpoint(tmp_path / "one"))
    assert match in run(*words, status=2)


def test_a_registry_must_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REWRITE_REGISTRY", raising=False)
    assert main(["checkpoints", "list"]) == 2
    assert "REWRITE_REGISTRY" in capsys.readouterr().err
