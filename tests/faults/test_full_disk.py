"""Disks and a Redis that are full: what does not fit is refused by an error, and nothing is half there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from disks import MB, disk, fill
from redis_server import running_redis
from searcher import searching
from small_checkpoint import write_checkpoint
from world import judge, judge_searches, learn, settings, started

from app.errors import RegistryError
from app.registry.place import Place
from app.registry.store import Registry
from training.canary.processes import Replica

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "disk", MB) as folder:
        yield folder


@pytest.mark.fault(
    broken="the registry's disk is full at a push, and at a move of an alias",
    promised="a typed error; nothing half is listed, aliases stay; the same push works once there is room",
)
def test_the_registry_is_full(small_disk: Path, tmp_path: Path, seen: dict[str, Any]) -> None:
    registry = Registry(Place.at(str(small_disk)))
    first = registry.push(write_checkpoint(tmp_path / "first"))
    point(registry, first)
    filler = fill(small_disk)
    second = write_checkpoint(tmp_path / "second", weights="x" * 200_000)
    with pytest.raises(RegistryError, match="No space left"):
        registry.push(second)
    with pytest.raises(RegistryError, match="No space left"):
        registry.aliases.move("stable", seen=registry.aliases.current("stable"), **by())
    with pytest.raises(RegistryError, match="No space left"):
        point(registry, first, alias="candidate")
    assert registry.digests() == [first]
    assert registry.aliases.all() == {"stable": first}
    registry.verify(first)
    shutil.rmtree(filler)
    again = registry.push(second)
    point(registry, again)
    registry.verify(again)
    assert registry.aliases.all() == {"stable": again}
    seen["note"] = "every refusal says `No space left on device`"


@pytest.mark.fault(
    broken="the registry's disk fills up in the middle of a push",
    promised="a typed error; what was written of it is not seen; the same push works once there is room",
)
def test_the_registry_fills_up_half_way(small_disk: Path, tmp_path: Path) -> None:
    registry = Registry(Place.at(str(small_disk)))
    large = write_checkpoint(tmp_path / "large", weights="x" * (MB // 2))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(MB * 3 // 4))
    with pytest.raises(RegistryError, match="No space left"):
        registry.push(large)
    assert registry.digests() == []
    ballast.unlink()
    registry.verify(registry.push(large))


@pytest.mark.fault(
    broken="the disk for pulled checkpoints is full",
    promised="a typed error, nothing half is left; the same pull works once there is room",
)
def test_there_is_no_room_to_pull(small_disk: Path, tmp_path: Path) -> None:
    registry = Registry(Place.at(str(tmp_path / "registry")))
    digest = registry.push(write_checkpoint(tmp_path / "new", weights="x" * 200_000))
    filler = fill(small_disk)
    for pull in (registry.pull, registry.pull_once):
        with pytest.raises(RegistryError, match="No space left"):
            pull(digest, small_disk / "pulled" / digest)
    assert list(small_disk.rglob("model.safetensors")) == []
    shutil.rmtree(filler)
    assert registry.pull_once(digest, small_disk / "pulled" / digest).id == "test-1"


@pytest.mark.fault(
    broken="the disk of an SQLite store is full, of bytes and of files",
    promised="searches do not notice; events are refused with 503, and count once when there is room again",
)
def test_the_store_is_full(small_disk: Path, tmp_path: Path, seen: dict[str, Any]) -> None:
    database = f"sqlite:///{small_disk / 'rollouts.db'}"
    replica = Replica("replica", tmp_path, settings(tmp_path, rollouts=database))
    with started((replica,)):
        expected = learn(replica.url)
        with searching([replica.url], expected) as searcher:
            filler = fill(small_disk)
            searcher.refuses()
            searcher.more(50)
            shutil.rmtree(filler)
            searcher.reports_again()
        judge(searcher, database, 0)
    seen.update(searcher.facts())
    assert seen["degraded"] == 0


@pytest.mark.fault(
    broken="Redis is full (`maxmemory`, `noeviction`)",
    promised="what is there is still found, the rest is a miss; the engine answers",
)
def test_the_shared_cache_is_full(tmp_path: Path, seen: dict[str, Any]) -> None:
    with running_redis("--maxmemory-policy", "noeviction") as redis:
        options = settings(tmp_path, redis_url=redis.url)
        replica = Replica("replica", tmp_path, options)
        with started((replica,)):
            redis.ask("CONFIG", "SET", "maxmemory", "1")
            expected = learn(replica.url)
            with searching([replica.url], expected, events=False) as searcher:
                searcher.more(50)
                assert redis.stored() == []
                redis.ask("CONFIG", "SET", "maxmemory", "0")
                searcher.more(50)
            assert redis.stored()
            judge_searches(searcher)
    seen.update(searcher.facts())
    assert seen["degraded"] == 0


def by() -> dict[str, Any]:
    return {"to_digest": None, "who": "ann", "why": "x", "when": datetime.now(UTC)}


def point(registry: Registry, digest: str, alias: str = "stable") -> None:
    registry.aliases.point(alias, digest, who="ann", why="x", when=datetime.now(UTC))
