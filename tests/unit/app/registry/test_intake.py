"""A Hugging Face folder becomes a checkpoint, or is refused with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.contracts.confidence import CALIBRATION_NAME, Calibration
from app.contracts.manifest import MANIFEST_NAME
from app.errors import CheckpointError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from app.registry.intake import GOLDEN, take_in

MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What `save_pretrained` leaves, beside a licence and a hidden file."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in MODEL:
        shutil.copy(DEFAULT_CHECKPOINT / name, folder)
    (folder / "LICENSE").write_text("free")
    (folder / ".gitattributes").touch()
    return folder


def test_a_model_folder_becomes_a_checkpoint(source: Path, tmp_path: Path) -> None:
    take_in(source, tmp_path / "out", checkpoint_id="mine", parent="f" * 64)
    checkpoint, default = load_checkpoint(tmp_path / "out"), load_checkpoint(DEFAULT_CHECKPOINT)
    assert (checkpoint.id, checkpoint.manifest.parent) == ("mine", "f" * 64)
    assert checkpoint.manifest.parameters == default.manifest.parameters
    assert checkpoint.golden == default.golden[: len(GOLDEN)]  # as torch has computed them
    assert set(checkpoint.manifest.files) == {*MODEL, CALIBRATION_NAME}
    assert checkpoint.calibration == Calibration.own_probability(0.02)
    assert checkpoint.model_digest == default.model_digest


def test_a_calibration_comes_along_or_is_given(source: Path, tmp_path: Path) -> None:
    calibration = DEFAULT_CHECKPOINT / CALIBRATION_NAME
    take_in(source, tmp_path / "given", checkpoint_id="mine", calibration=calibration)
    shutil.copy(calibration, source)
    take_in(source, tmp_path / "own", checkpoint_id="mine")
    for name in ("given", "own"):
        assert load_checkpoint(tmp_path / name).calibration == load_checkpoint(DEFAULT_CHECKPOINT).calibration


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("pytorch_model.bin", b"\x80\x04.", "may run code"),
        ("modeling_mine.py", b"", "may run code"),
        ("model.safetensors", b"\x80\x04.", "not safetensors"),
        ("config.json", b'{"model_type": "llama"}', r"config\.json"),
        ("tokenizer.json", b"{}", r"tokenizer\.json"),
    ],
)
def test_what_may_not_be_loaded_is_refused(
    source: Path, tmp_path: Path, name: str, content: bytes, match: str
) -> None:
    (source / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        take_in(source, tmp_path / "out", checkpoint_id="mine")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_link_or_a_missing_file_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.json").symlink_to(DEFAULT_CHECKPOINT / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: a symbolic link; copy .* `cp -rL`"):
        take_in(source, out, checkpoint_id="mine")
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing"):
        take_in(source, out, checkpoint_id="mine")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    (source / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="weights in several files"):
        take_in(source, out, checkpoint_id="mine")
    with pytest.raises(CheckpointError, match="no such folder"):
        take_in(tmp_path / "nowhere", out, checkpoint_id="mine")


def test_a_tokenizer_without_the_control_tokens_is_refused(source: Path, tmp_path: Path) -> None:
    text = (source / "tokenizer.json").read_text(encoding="utf-8")
    (source / "tokenizer.json").write_text(text.replace("<|rewrite|>", "<|answer|>"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no token <\|rewrite\|>.*`corewrite train`"):
        take_in(source, tmp_path / "out", checkpoint_id="mine")


def test_weights_are_counted_by_their_header(source: Path, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32"}}).encode()
    (source / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="header"):
        take_in(source, tmp_path / "out", checkpoint_id="mine")
    assert not (source / MANIFEST_NAME).exists()
