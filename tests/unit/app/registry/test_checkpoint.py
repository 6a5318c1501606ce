from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.contracts.confidence import KINDS, Calibration, Platt
from app.contracts.manifest import MANIFEST_NAME, Manifest
from app.contracts.prompt import PROMPT_VERSION
from app.errors import CheckpointError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, REQUIRED, describe_file, load_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in REQUIRED:
        (tmp_path / name).write_text(f"content of {name}")
    platt = Platt(0.0, (1.0, 0.0, 0.0))
    calibration = Calibration(0.5, dict.fromkeys(KINDS, platt))
    (tmp_path / "calibration.json").write_text(calibration.to_json())
    write_manifest(tmp_path)
    return tmp_path


def write_manifest(folder: Path, **changes: object) -> None:
    names = [name for name in REQUIRED if (folder / name).exists()]
    facts = {
        "version": 1,
        "checkpoint_id": "test-1",
        "architecture": "Qwen3ForCausalLM",
        "prompt_version": PROMPT_VERSION,
        "parameters": 10,
        "parent": None,
        "files": {name: describe_file(folder / name).model_dump() for name in names},
        "golden": [],
        "training": {},
    }
    (folder / MANIFEST_NAME).write_text(json.dumps({**facts, **changes}))


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
        {"version": 2},
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
