"""Backends that live and do not answer in time: slow, trickling, silent, torn. Searches go on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from controllers import PLAN
from s3_server import s3_server
from searcher import searching
from waiting import wait_until
from world import World, judge, learn, make_registry, settings, started

from app.registry.checkpoint import load_checkpoint
from loadtest.proxy import Way, way_to
from training.canary.checkpoints import twin
from training.canary.processes import Replica
from training.canary.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def slow(way: Way) -> None:
    way.latency_s = 0.3


def trickling(way: Way) -> None:
    way.bytes_per_s = 500


def silent(way: Way) -> None:
    way.silence()


def torn(way: Way) -> None:
    way.tear()


@pytest.mark.fault(
    broken="Redis answers late, byte by byte, never, or by resets",
    promised="a miss within `redis_timeout_ms`; the engine answers, and Redis is used again once it is well",
)
@pytest.mark.parametrize("spoil", [slow, trickling, silent, torn])
def test_redis_is_slow(world: World, spoil: Callable[[Way], None], seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        spoil(world.way_to_redis)
        searcher.more(50)
        assert world.redis.ask("FLUSHALL") == b"+OK\r\n"
        world.way_to_redis.mend()
        searcher.more(20)
        wait_until(world.redis.stored)
    seen.update(searcher.facts())
    assert (seen["retried"], seen["refused"], seen["degraded"]) == (0, 0, 0)


@pytest.mark.fault(
    broken="PostgreSQL answers late, byte by byte, never, or by resets",
    promised="searches do not notice; events are refused within seconds or taken late, and count once",
)
@pytest.mark.parametrize("spoil", [slow, trickling, silent, torn])
def test_the_store_is_slow(world: World, spoil: Callable[[Way], None], seen: dict[str, Any]) -> None:
    with world.searching() as searcher:
        spoil(world.way_to_store)
        if spoil in {slow, trickling}:
            searcher.reports_again()
        else:
            searcher.refuses()
        searcher.more(50)
        world.way_to_store.mend()
        searcher.reports_again()
    seen.update(searcher.facts())
    assert (seen["retried"], seen["degraded"]) == (0, 0)


@pytest.mark.fault(
    broken="the registry (S3) is silent, then slow, while a rollout's checkpoint is to be loaded",
    promised="what serves, serves on; the checkpoint is loaded once the registry answers",
)
def test_the_registry_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]) -> None:
    make_registry(str(tmp_path / "registry"))
    digest = twin(tmp_path, "twin")
    weights = load_checkpoint(tmp_path / "twin").weights_digest
    with s3_server() as endpoint, way_to(int(endpoint.rpartition(":")[2])) as way:
        variables = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}
        for name, value in {**variables, "ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        httpx.put(f"{endpoint}/bucket").raise_for_status()
        taken = ["checkpoints", "import", "--registry", "s3://bucket", str(tmp_path / "twin")]
        subprocess.run([sys.executable, "-m", "app.cli", *taken], check=True, capture_output=True)
        database = f"sqlite:///{tmp_path / 'rollouts.db'}"
        options = settings(tmp_path, registry="s3://bucket", rollouts=database, rollout_decide_s=0.2)
        service = Service((Replica("replica", tmp_path, options),), None, database)  # type: ignore[arg-type]
        with started(service.replicas):
            known = learn(service.urls[0])
            expected = {**known, **{(weights, *asked): said for (_, *asked), said in known.items()}}
            with searching(service.urls, expected) as searcher:
                service.order("start", name="slow", checkpoint=digest, plan=PLAN, ungated=True)
                way.silence()
                searcher.more(50)
                assert service.status()["rollout"]["last"]["state"] == "preparing"
                way.latency_s = 0.01
                way.speak()
                wait_until(lambda: service.status()["rollout"]["last"]["state"] == "running", within_s=60)
                searcher.more(50)
            judge(searcher, database, 0)
    seen.update(searcher.facts())
