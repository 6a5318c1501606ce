"""The registry: what goes in comes out, or is refused before it is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from time import sleep
from typing import Any

import pytest
from small_checkpoint import write_checkpoint, write_manifest

from app.contracts.manifest import MANIFEST_NAME, Manifest, address_of
from app.errors import CheckpointError, RegistryError, UnknownCheckpointError
from app.registry.checkpoint import DEFAULT_CHECKPOINT, MAX_MANIFEST_BYTES, load_checkpoint
from app.registry.place import Place
from app.registry.store import Refused, Registry, Stored

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def registry(place: Place) -> Registry:
    return Registry(place)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source")


@pytest.fixture
def digest(registry: Registry, source: Path) -> str:
    return registry.push(source)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "pulled" / "here"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_pushed_comes_back_as_it_was(
    registry: Registry, digest: str, source: Path, target: Path
) -> None:
    assert digest == address_of((source / MANIFEST_NAME).read_bytes())
    assert registry.pull(digest, target).manifest == load_checkpoint(source).manifest
    assert contents(target) == contents(source)
    (stored,) = registry.all()
    assert (stored.digest, stored.manifest.checkpoint_id) == (digest, "test-1")
    assert abs(stored.pushed - datetime.now(UTC)) < timedelta(minutes=5)
    registry.verify(digest)


def test_the_same_is_stored_once_and_another_beside_it(
    registry: Registry, digest: str, source: Path, tmp_path: Path
) -> None:
    assert registry.push(source) == digest
    other = registry.push(write_checkpoint(tmp_path / "other", weights="x"))
    assert registry.digests() == sorted([digest, other])


def test_many_who_want_it_in_one_folder_at_once_all_get_it(place: Place, digest: str, target: Path) -> None:
    """Replicas of one machine share the folder; one of them fetches."""
    together, fetched, real = Barrier(4), [], Place.fetch

    def pull() -> Manifest:
        together.wait(timeout=30)
        return Registry(place).pull_once(digest, target).manifest

    def fetch(self: Place, file: Path, *parts: str) -> None:
        fetched.append(file.name)
        sleep(0.01)
        real(self, file, *parts)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(Place, "fetch", fetch)
        manifests = [future.result() for future in [pool.submit(pull) for _ in range(4)]]
    assert manifests == [load_checkpoint(target).manifest] * 4
    assert sorted(fetched) == sorted(manifests[0].files)


def test_what_was_spoilt_after_it_was_pulled_is_fetched_again(
    registry: Registry, digest: str, source: Path, target: Path
) -> None:
    registry.pull_once(digest, target)
    (target / "tokenizer.json").write_bytes(b"content of tokenizer.jsom")
    assert registry.pull_once(digest, target).path == target
    assert contents(target) == contents(source)


def test_what_was_pulled_needs_the_registry_no_more(place: Place, digest: str, target: Path) -> None:
    first = Registry(place).pull_once(digest, target)
    place.remove("checkpoints", digest)
    assert Registry(place).pull_once(digest, target) == first


def test_what_is_no_checkpoint_is_not_pushed(registry: Registry, source: Path) -> None:
    (source / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        registry.push(source)
    assert registry.digests() == []


def test_a_gate_report_is_named_by_the_manifest(
    registry: Registry, digest: str, source: Path, tmp_path: Path, target: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text('{"verdict": "PASS"}')
    gated = registry.push(source, gate_report=report)
    assert gated != digest
    assert registry.gate_report(registry.stored(gated)) == report.read_bytes()
    assert registry.gate_report(registry.stored(digest)) is None
    checkpoint = registry.pull(gated, target)
    assert checkpoint.weights_digest == load_checkpoint(source).weights_digest  # the caches need not know
    assert registry.push(target) == gated
    assert not (source / "gate.json").exists()


@pytest.mark.parametrize(
    ("spoilt", "match"),
    [
        (("tokenizer.json", b"content of tokenizer.jsom"), r"tokenizer\.json: its SHA-256"),
        (("tokenizer.json", b"content"), r"tokenizer\.json has 7 bytes where the manifest says 25"),
        (("model.safetensors", b"x" * 99), r"model\.safetensors has 99 bytes"),
        ((MANIFEST_NAME, b"{}"), "it was altered"),
        ((MANIFEST_NAME, b"x" * (MAX_MANIFEST_BYTES + 1)), "more than the"),
    ],
)
def test_what_was_altered_is_refused(
    place: Place, digest: str, target: Path, spoilt: tuple[str, bytes], match: str
) -> None:
    registry, (name, content) = Registry(place), spoilt
    with place.files.open(place.path("checkpoints", digest, name), "wb") as stream:
        stream.write(content)
    with pytest.raises(CheckpointError, match=match):
        registry.pull(digest, target)
    with pytest.raises(CheckpointError, match=match):
        registry.verify(digest)
    assert not target.exists()
    assert not [*target.parent.glob(".*")]


def test_one_that_was_altered_does_not_hide_the_others(
    place: Place, registry: Registry, digest: str, tmp_path: Path
) -> None:
    other = registry.push(write_checkpoint(tmp_path / "other", checkpoint_id="test-2"))
    with place.files.open(place.path("checkpoints", other, MANIFEST_NAME), "wb") as stream:
        stream.write(b"{}")
    assert {one.digest: type(one) for one in registry.all()} == {digest: Stored, other: Refused}
    assert registry.resolve("test-1") == digest
    with pytest.raises(UnknownCheckpointError, match="no such checkpoint"):
        registry.resolve("test-2")


@pytest.fixture
def hostile(place: Place, source: Path, spoil: Callable[..., None]) -> Callable[..., str]:
    """Write a manifest at its own address: whoever can write to the bucket can do this."""

    def write(**facts: Any) -> str:
        write_manifest(source, **facts)
        content = (source / MANIFEST_NAME).read_bytes()
        digest = address_of(content)
        place.put(source / MANIFEST_NAME, "checkpoints", digest, MANIFEST_NAME)
        spoil(content, "checkpoints", digest, MANIFEST_NAME)
        return digest

    return write


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"version": 3}, "version"),
        ({"files": {"../../up.json": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {"/etc/passwd.json": {"sha256": "0" * 64, "bytes": 1}}}, "files"),
        ({"files": {"weights.bin": {"sha256": "0" * 64, "bytes": 1}}}, "neither text nor safetensors"),
        ({"files": {"model.safetensors": {"sha256": "0" * 64, "bytes": 1 << 50}}}, "more than"),
        ({"files": {"model.safetensors": {"sha256": "0" * 64, "bytes": 9}}}, "is missing"),
    ],
)
def test_a_manifest_that_asks_for_too_much_is_refused_before_anything_is_fetched(
    registry: Registry,
    hostile: Callable[..., str],
    target: Path,
    facts: dict[str, Any],
    match: str,
) -> None:
    digest = hostile(**facts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "fetch", lambda *_: pytest.fail("fetched"))
        with pytest.raises(CheckpointError, match=match):
            registry.pull(digest, target)
    assert not target.exists()


@pytest.mark.parametrize("name", ["config.json", MANIFEST_NAME])
def test_a_symbolic_link_is_refused(source: Path, tmp_path: Path, target: Path, name: str) -> None:
    registry = Registry(Place.at(str(tmp_path / "registry")))
    digest = registry.push(source)
    file = tmp_path / "registry" / "checkpoints" / digest / name
    file.unlink()
    file.symlink_to(source / name)
    with pytest.raises(CheckpointError, match="symbolic link"):
        registry.pull(digest, target)


def test_an_upload_that_was_cut_off_is_invisible(
    registry: Registry, source: Path, monkeypatch: pytest.MonkeyPatch, target: Path
) -> None:
    """And the next one goes on to be whole."""
    real, files = Place.put, []

    def cut(self: Place, file: Path, *parts: str) -> None:
        files.append(file)
        if len(files) == 3:
            raise KeyboardInterrupt
        real(self, file, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "put", cut)
        with pytest.raises(KeyboardInterrupt):
            registry.push(source)
    digest = address_of((source / MANIFEST_NAME).read_bytes())
    assert registry.digests() == []
    with pytest.raises(UnknownCheckpointError):
        registry.pull(digest, target)
    assert registry.push(source) == digest
    registry.verify(digest)


def test_a_reference_is_an_alias_an_address_or_an_id(registry: Registry, digest: str, tmp_path: Path) -> None:
    other = registry.push(write_checkpoint(tmp_path / "other", checkpoint_id="test-2"))
    move = registry.aliases.move("stable", other, seen=None, who="ann", why="x", when=NOW)
    for reference, meant in (
        ("stable", other),
        ("test-1", digest),
        ("test-2", other),
        (digest, digest),
        (digest[:8], digest),
    ):
        assert registry.resolve(reference) == meant
    for reference in ("test-3", digest[:7], "f" * 64, "", "nightly"):
        with pytest.raises(UnknownCheckpointError, match="no such checkpoint"):
            registry.resolve(reference)
    registry.push(write_checkpoint(tmp_path / "again", weights="y"))
    with pytest.raises(UnknownCheckpointError, match="2 checkpoints are called that"):
        registry.resolve("test-1")
    registry.aliases.move("stable", None, seen=move, who="ann", why="it hurt", when=NOW)
    with pytest.raises(UnknownCheckpointError, match=r"points nowhere since .*: it hurt"):
        registry.resolve("stable")


def test_what_no_alias_needs_goes_after_its_time(registry: Registry, digest: str, tmp_path: Path) -> None:
    pushed = {
        name: registry.push(write_checkpoint(tmp_path / name, weights=name))
        for name in ("was", "is", "unused")
    }
    later = datetime.now(UTC) + timedelta(days=40)
    early = datetime.now(UTC)
    seen = None
    for to, when in (
        (digest, early),
        (pushed["was"], early + timedelta(days=1)),
        (pushed["is"], later - timedelta(days=2)),
    ):
        seen = registry.aliases.move("stable", to, seen=seen, who="ann", why="x", when=when)
    month = timedelta(days=30)
    assert registry.collect(datetime.now(UTC), unused_for=month, really=True) == []
    gone = sorted([digest, pushed["unused"]])
    assert registry.collect(later, unused_for=month, really=False) == gone
    assert len(registry.digests()) == 4
    assert registry.collect(later, unused_for=month, really=True) == gone
    assert registry.digests() == sorted([pushed["was"], pushed["is"]])
    registry.verify(pushed["is"])


def test_uploads_that_were_cut_off_go_after_a_day(registry: Registry, place: Place, source: Path) -> None:
    place.put(source / "config.json", "checkpoints", "0" * 64, "config.json")
    soon = datetime.now(UTC)
    month = timedelta(days=30)
    assert registry.collect(soon + timedelta(hours=23), unused_for=month, really=True) == []
    assert registry.collect(soon + timedelta(hours=25), unused_for=month, really=True) == ["0" * 64]
    assert place.names("checkpoints") == []


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


def test_a_signature_is_asked_for_where_a_setting_says_so(
    place: Place, source: Path, tmp_path: Path, target: Path, spoil: Callable[..., None]
) -> None:
    (ann, ann_public), (bo, bo_public) = keys(tmp_path, "ann"), keys(tmp_path, "bo")
    both = tmp_path / "both.pem"
    both.write_bytes(ann_public.read_bytes() + bo_public.read_bytes())
    plain = Registry(place)
    digest = plain.push(source)
    strict = Registry(place, signers=both)
    with pytest.raises(CheckpointError, match="not signed"):
        strict.pull(digest, target)
    assert strict.push(source, key=bo) == digest  # signed where it lies
    strict.pull(digest, target)
    load_checkpoint(target, signers=both)
    with pytest.raises(CheckpointError, match=r"not signed by any of the 1 in .*ann\.pub\.pem"):
        Registry(place, signers=ann_public).pull(digest, target)
    assert plain.push(source, key=ann) == digest  # bo's key is to be believed no longer
    Registry(place, signers=ann_public).pull(digest, target)
    with pytest.raises(CheckpointError, match="not signed by any"):
        Registry(place, signers=bo_public).pull(digest, target)
    plain.pull(digest, target)
    spoil(b"bm90IGEgc2lnbmF0dXJl", "checkpoints", digest, "manifest.sig")
    with pytest.raises(CheckpointError, match="or altered since"):
        strict.pull(digest, target)
    for wrong in (both, tmp_path / "none.pem", source / "config.json"):
        with pytest.raises(CheckpointError, match="key"):
            plain.push(source, key=wrong)
    with pytest.raises(CheckpointError, match="no public key"):
        Registry(place, signers=source / "config.json").pull(digest, target)
    del ann


def test_the_checkpoint_of_the_package_needs_no_signature_and_a_copy_of_it_does(tmp_path: Path) -> None:
    _, public = keys(tmp_path, "ann")
    assert load_checkpoint(DEFAULT_CHECKPOINT, signers=public).path == DEFAULT_CHECKPOINT
    shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "default")
    with pytest.raises(CheckpointError, match="not signed"):
        load_checkpoint(tmp_path / "default", signers=public)
    (tmp_path / "none.pem").touch()
    with pytest.raises(CheckpointError, match="no public key"):  # while somebody looks
        load_checkpoint(DEFAULT_CHECKPOINT, signers=tmp_path / "none.pem")


def test_a_manifest_of_the_first_version_is_read(registry: Registry, source: Path) -> None:
    write_manifest(source, version=1)
    digest = registry.push(source)
    manifest = registry.stored(digest).manifest
    assert (manifest.version, manifest.gate_report) == (1, None)
    assert manifest.with_gate_report("0" * 64).version == 2
    assert Manifest.model_validate(json.loads(manifest.to_json())) == manifest


def test_a_place_out_of_reach_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="file"):
        Registry(Place.at(str(tmp_path / "file"))).push(write_checkpoint(tmp_path / "source"))
    with pytest.raises(RegistryError, match="nosuch"):
        Place.at("nosuch://place")


def test_signatures_without_their_library_say_which_extra_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(CheckpointError, match=r"corewrite\[signing\]"):
        load_checkpoint(source, signers=tmp_path / "signers.pem")
