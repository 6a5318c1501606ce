"""A replica that may take hardly any more memory: what does not fit is refused, what serves, serves on."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from searcher import searching
from world import TOKEN, judge_searches, learn, settings, started

from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from loadtest.sibling import make_sibling
from training.canary.processes import Replica

if TYPE_CHECKING:
    from collections.abc import Iterator

ADMIN = {"authorization": f"Bearer {TOKEN}"}


@contextmanager
def no_more_than(replica: Replica, further_bytes: int) -> Iterator[None]:
    """Let a replica map so many bytes more than it has now."""
    assert replica.process is not None
    pid = replica.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
    free = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + further_bytes, free[1]))
    try:
        yield
    finally:
        if replica.process.poll() is None:
            resource.prlimit(pid, resource.RLIMIT_AS, free)


@pytest.mark.fault(
    broken="a replica gets only a few MB more (RLIMIT_AS) when a second checkpoint is to be loaded",
    promised="the swap is refused and says why, what serves, serves on; later the same swap works",
)
@pytest.mark.parametrize(
    "further_mb", [8, *(pytest.param(mb, marks=pytest.mark.long) for mb in (1, 16, 24, 40))]
)
def test_there_is_no_memory_for_a_second_checkpoint(
    tmp_path: Path, further_mb: int, seen: dict[str, Any]
) -> None:
    other = make_sibling(load_checkpoint(DEFAULT_CHECKPOINT), tmp_path / "checkpoints" / "other")
    replicas = tuple(Replica(f"replica-{number}", tmp_path, settings(tmp_path)) for number in (1, 2))
    victim = replicas[0]
    with started(replicas), httpx.Client(base_url=victim.url, timeout=60, headers=ADMIN) as client:

        def swap(to: str) -> httpx.Response:
            return client.post("/admin/checkpoints/activate", json={"id": to, "mechanism": "beside"})

        expected = learn(victim.url)
        with searching([replica.url for replica in replicas], expected, events=False) as searcher:
            with no_more_than(victim, further_mb << 20):
                try:
                    said = swap(other.id).json()["detail"]
                except httpx.TransportError:  # without memory C libraries abort, which nobody can catch
                    said = "the process was aborted by a C library; the other replica answered"
                searcher.more(30)
            if victim.process is not None and victim.process.poll() is not None:
                victim.start()
            searcher.more(30)
        judge_searches(searcher)
        seen.update(searcher.facts())
        seen["note"] = f"{further_mb} MB: {said.replace(f'{other.path}: ', '')}"
        assert said.startswith("default serves on: ") or further_mb != 8
        assert swap(other.id).json()["outcome"] == "activated"
