from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.rewrite.cache import LruCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_least_recently_used_entry_goes() -> None:
    cache = LruCache[str, int](max_entries=2, ttl_s=10, clock=Clock())
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_an_entry_lives_for_its_time_and_no_longer() -> None:
    clock = Clock()
    cache = LruCache[str, int](max_entries=2, ttl_s=10, clock=clock)
    cache.put("a", 1)
    clock.now = 9.99
    assert cache.get("a") == 1
    clock.now = 10.0
    assert cache.get("a") is None
    assert len(cache) == 0


def test_reading_does_not_prolong_and_writing_does() -> None:
    clock = Clock()
    cache = LruCache[str, int](max_entries=2, ttl_s=10, clock=clock)
    cache.put("a", 1)
    clock.now = 9.0
    cache.put("a", 2)
    clock.now = 18.0
    assert cache.get("a") == 2


@given(keys=st.lists(st.integers(0, 9)), size=st.integers(0, 5))
def test_it_never_holds_more_than_allowed(keys: Any, size: Any) -> None:
    cache = LruCache[int, int](max_entries=size, ttl_s=10, clock=Clock())
    for key in keys:
        cache.put(key, key)
        assert len(cache) <= size
        assert cache.get(key) == (key if size else None)
