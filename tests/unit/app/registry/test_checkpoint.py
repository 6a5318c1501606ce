from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from small_checkpoint import NO_TENSORS, write_checkpoint, write_manifest

from app.contracts.manifest import MANIFEST_NAME, Manifest
from app.contracts.prompt import PROMPT_VERSION
from app.errors import CheckpointError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, REQUIRED, describe_file, load_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path)


def test_a_whole_checkpoint_loads(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    assert checkpoint.id == "test-1"
    assert checkpoint.calibration.threshold == 0.5
    assert checkpoint.weights_digest == checkpoint.manifest.weights_digest
    assert len(checkpoint.weights_digest) == 64


@pytest.mark.parametrize("name", REQUIRED)
def test_any_changed_byte_is_found_and_the_file_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: its SHA-256"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", REQUIRED)
def test_every_file_is_in_the_digest(folder: Path, name: str) -> None:
    before = load_checkpoint(folder).weights_digest
    content = (folder / name).read_text()
    (folder / name).write_text(content.replace("0.5", "0.6") if name == "calibration.json" else content + ".")
    write_manifest(folder)
    assert load_checkpoint(folder).weights_digest != before


def test_a_truncated_file_is_refused_by_its_size(folder: Path) -> None:
    (folder / "model.safetensors").write_text("con")
    with pytest.raises(CheckpointError, match="3 bytes where the manifest says"):
        load_checkpoint(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing"):
        load_checkpoint(folder)


def test_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "elsewhere.json")
    (folder / "tokenizer.json").symlink_to(folder / "elsewhere.json")
    with pytest.raises(CheckpointError, match="symbolic link"):
        load_checkpoint(folder)


def test_a_manifest_must_list_what_serving_needs(folder: Path) -> None:
    (folder / "config.json").unlink()
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=r"lists no config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"architecture": "Other"},
        {"surprise": 1},
        {"checkpoint_id": "../up"},
        {"files": {"../up": {"sha256": "0" * 64, "bytes": 1}}},
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(folder: Path, change: dict[str, object]) -> None:
    write_manifest(folder, **change)
    with pytest.raises(CheckpointError, match="validation error"):
        load_checkpoint(folder)


def test_a_file_that_may_run_code_is_refused(folder: Path) -> None:
    """By its name in the manifest, by its beginning, and where nobody lists it."""
    write_manifest(folder, files={"pytorch_model.bin": {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: neither text nor safetensors"):
        load_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": 1}))
    write_manifest(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not safetensors"):
        load_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(NO_TENSORS)
    write_manifest(folder)
    load_checkpoint(folder)
    (folder / "modeling_qwen3.py").touch()
    with pytest.raises(CheckpointError, match="does not list it"):
        load_checkpoint(folder)


def test_a_header_longer_than_the_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((99).to_bytes(8, "little") + b"{}")
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="not safetensors"):
        load_checkpoint(folder)


def test_the_gate_report_is_the_one_that_the_manifest_names(folder: Path) -> None:
    (folder / "gate.json").write_text('{"verdict": "PASS"}')
    write_manifest(folder, gate_report=describe_file(folder / "gate.json").sha256)
    load_checkpoint(folder)
    (folder / "gate.json").write_text('{"verdict": "FAIL"}')
    with pytest.raises(CheckpointError, match="not the report"):
        load_checkpoint(folder)


def test_a_data_window_ends_after_it_begins(folder: Path) -> None:
    days = ("2026-11-01T00:00:00Z", "2026-11-08T00:00:00Z")
    write_manifest(folder, data_window={"first": days[0], "last": days[1]})
    window = load_checkpoint(folder).manifest.data_window
    assert window is not None
    assert (window.last - window.first).days == 7
    write_manifest(folder, data_window={"first": days[1], "last": days[0]})
    with pytest.raises(CheckpointError, match="ends after it begins"):
        load_checkpoint(folder)


def test_another_prompt_version_is_refused(folder: Path) -> None:
    write_manifest(folder, prompt_version=PROMPT_VERSION + 1)
    with pytest.raises(CheckpointError, match="prompt version"):
        load_checkpoint(folder)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path)


def test_a_broken_calibration_is_refused(folder: Path) -> None:
    (folder / "calibration.json").write_text("{}")
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="not a calibration"):
        load_checkpoint(folder)


def test_the_default_checkpoint_is_whole_small_and_described() -> None:
    checkpoint = load_checkpoint(DEFAULT_CHECKPOINT)
    assert sum(file.stat().st_size for file in DEFAULT_CHECKPOINT.iterdir()) <= 20 * 2**20
    assert set(checkpoint.manifest.files) | {MANIFEST_NAME} == {f.name for f in DEFAULT_CHECKPOINT.iterdir()}
    card = (DEFAULT_CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert "O*NET 27.0 Database by the U.S. Department of Labor" in card
    assert Manifest.model_validate_json(checkpoint.manifest.to_json()) == checkpoint.manifest
