"""Backends that live and do not answer in time: slow, trickling, silent, torn. Searches go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proxy import Way
from world import World


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
        world.way_to_redis.mend()
        searcher.more(20)
    seen.update(searcher.facts())
    assert (seen["retried"], seen["refused"]) == (0, 0)


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
