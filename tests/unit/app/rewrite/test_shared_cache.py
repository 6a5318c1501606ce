from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import DIGEST
from hypothesis import given
from hypothesis import strategies as st
from redis_server import RedisServer, running_redis

from app.contracts.reasons import Drop, Reason
from app.engines.breaker import Breaker
from app.errors import CorewriteError
from app.rewrite import shared_cache
from app.rewrite.answer import Judged, Rewrite
from app.rewrite.generator import Key
from app.rewrite.shared_cache import PREFIX, SharedCache
from app.rewrite.shared_entry import decode, digest_of, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KEY = Key(weights_digest=DIGEST, prompt="<|query|>rn<|rewrite|>", locale="en-gb", num_completions=4)
JUDGED = Judged(
    rewrites=(Rewrite("registered nurse", -0.25, 0.9), Rewrite("Krankenschwester", -1.5, 0.6)),
    reason=None,
    drops={Drop.COPY: 2},
    weights_digest=DIGEST,
    checkpoint_id="jobs-2",
)


@dataclass
class Replica:
    """One process' view of the shared cache, and what it counted."""

    url: str
    ttl_s: float = 60.0
    timeout_s: float = 10.0
    scope: str = "policy-1"
    results: list[str] = field(default_factory=list)

    def open(self) -> SharedCache:
        return SharedCache(
            self.url,
            ttl_s=self.ttl_s,
            timeout_s=self.timeout_s,
            scope=self.scope,
            breaker=Breaker(max_failures=5, open_s=5.0),
            on_result=self.results.append,
        )

    def run(self, scenario: Callable[[SharedCache], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            cache = self.open()
            try:
                return await scenario(cache)
            finally:
                await cache.close()

        return asyncio.run(whole())

    def get(self, key: Key = KEY) -> Judged | None:
        found: Judged | None = self.run(lambda cache: cache.get(key))
        return found

    def put(self, key: Key = KEY, judged: Judged = JUDGED) -> None:
        async def scenario(cache: SharedCache) -> None:
            cache.put(key, judged)

        self.run(scenario)


@pytest.fixture(scope="module")
def started() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(started: RedisServer) -> RedisServer:
    started.ask("FLUSHALL")
    return started


unit = st.floats(0, 1)
rewrites = st.builds(
    Rewrite,
    text=st.text(min_size=1, max_size=40),
    logprob=st.floats(max_value=0, allow_infinity=False),
    confidence=unit,
)
drops = st.dictionaries(st.sampled_from(Drop), st.integers(1, 16))
shapes = st.one_of(
    st.builds(
        Judged,
        rewrites=st.lists(rewrites, min_size=1, max_size=4).map(tuple),
        reason=st.none(),
        drops=drops,
        weights_digest=st.just(DIGEST),
        checkpoint_id=st.text(min_size=1),
    ),
    st.builds(
        Judged,
        rewrites=st.just(()),
        reason=st.sampled_from(Reason),
        drops=drops,
        weights_digest=st.just(DIGEST),
        checkpoint_id=st.text(min_size=1),
    ),
)
keys = st.builds(
    Key,
    weights_digest=st.sampled_from([DIGEST, "0" * 64]),
    # Lone surrogates and all: a key that cannot be written is still a key.
    prompt=st.text(st.characters(exclude_categories=())),
    locale=st.sampled_from(["", "en", "en-gb"]),
    num_completions=st.integers(1, 16),
    prompt_version=st.integers(1, 3),
)


@given(judged=shapes, prompt=st.text(), guard_s=unit)
def test_what_one_replica_writes_the_other_reads(
    started: RedisServer, judged: Judged, prompt: str, guard_s: float
) -> None:
    key = replace(KEY, prompt=prompt)
    writer, reader = Replica(started.url), Replica(started.url)
    writer.put(key, replace(judged, guard_s=guard_s))
    assert reader.get(key) == judged
    assert (writer.results, reader.results) == ([], ["hit"])


@given(judged=shapes)
def test_what_is_written_is_what_is_read_to_the_last_bit(judged: Judged) -> None:
    found = decode(encode(judged, digest="d"), digest="d", key=KEY)
    assert found == judged
    assert [type(drop) for drop in found.drops] == [Drop] * len(judged.drops)
    assert found.reason is judged.reason


def test_an_empty_cache_misses(redis: RedisServer) -> None:
    replica = Replica(redis.url)
    assert replica.get() is None
    assert replica.results == ["miss"]


@pytest.mark.parametrize(
    "other",
    [
        {"weights_digest": "0" * 64},
        {"prompt": "<|query|>rn <|rewrite|>"},
        {"locale": "en"},
        {"num_completions": 5},
        {"prompt_version": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_key_misses(redis: RedisServer, other: dict[str, Any]) -> None:
    replica = Replica(redis.url)
    replica.put()
    assert replica.get() == JUDGED
    assert replica.get(replace(KEY, **other)) is None
    assert replica.results == ["hit", "miss"]


def test_another_scope_misses(redis: RedisServer) -> None:
    Replica(redis.url).put()
    other = Replica(redis.url, scope="policy-2")
    assert other.get() is None
    assert other.results == ["miss"]


@given(one=keys, two=keys, scopes=st.tuples(st.text(max_size=3), st.text(max_size=3)))
def test_no_two_keys_share_a_digest(one: Key, two: Key, scopes: tuple[str, str]) -> None:
    assert (digest_of(one, scopes[0]) == digest_of(two, scopes[1])) == ((one, scopes[0]) == (two, scopes[1]))


def test_entries_expire(redis: RedisServer) -> None:
    Replica(redis.url, ttl_s=3600).put()
    (name,) = redis.stored()
    assert 3_590_000 < int(redis.ask("PTTL", name)[1:]) <= 3_600_000
    brief = Replica(redis.url, ttl_s=0.01)
    brief.put(replace(KEY, locale="de"))
    while brief.get(replace(KEY, locale="de")) is not None:
        time.sleep(0.01)
    assert brief.results[-1] == "miss"


def store(redis: RedisServer, value: bytes, key: Key = KEY) -> None:
    redis.ask("SET", PREFIX + digest_of(key, "policy-1"), value)


@given(value=st.binary())
def test_bytes_of_no_meaning_are_a_miss(started: RedisServer, value: bytes) -> None:
    replica = Replica(started.url)
    store(started, value)
    assert replica.get() is None
    assert replica.results == ["error"]


def valid() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(encode(JUDGED, digest=digest_of(KEY, "policy-1")))
    return stored


@given(at=st.integers(min_value=0))
def test_a_value_that_was_cut_is_a_miss(at: int) -> None:
    value = encode(JUDGED, digest="d")
    assert decode(value, digest="d", key=KEY) == JUDGED
    with pytest.raises(ValueError, match="JSON"):
        decode(value[: at % len(value)], digest="d", key=KEY)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(name=st.sampled_from([*valid(), "another"]), value=json_values)
def test_a_field_of_another_value_is_a_miss_or_as_good(name: str, value: Any) -> None:
    """Whatever stands in one field: an entry that is accepted is one that could have been written."""
    digest = digest_of(KEY, "policy-1")
    changed = json.dumps({**valid(), name: value}).encode()
    try:
        found = decode(changed, digest=digest, key=KEY)
    except ValueError:
        return
    assert found.weights_digest == DIGEST
    assert decode(encode(found, digest=digest), digest=digest, key=KEY) == found


def with_rewrite(**changes: Any) -> dict[str, Any]:
    return {"rewrites": [{**valid()["rewrites"][0], **changes}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "0" * 64},
        {"weights_digest": "0" * 64},
        {"checkpoint_id": ""},
        {"checkpoint_id": None},
        {"reason": "no_change"},
        {"rewrites": [], "reason": None},
        {"rewrites": [], "reason": "bored"},
        {"rewrites": "registered nurse"},
        {"drops": {"bored": 1}},
        {"drops": {"copy": 0}},
        {"drops": {"copy": True}},
        {"drops": {"copy": 1.5}},
        {"another": 1},
        with_rewrite(text=""),
        with_rewrite(text=7),
        with_rewrite(text="\ud800"),
        with_rewrite(logprob=0.1),
        with_rewrite(logprob=float("-inf")),
        with_rewrite(logprob=float("nan")),
        with_rewrite(logprob="-0.1"),
        with_rewrite(confidence=1.1),
        with_rewrite(confidence=-0.1),
        with_rewrite(confidence=float("nan")),
        with_rewrite(confidence=True),
        with_rewrite(another=1),
    ],
    ids=json.dumps,
)
def test_an_entry_that_is_not_right_is_a_miss(redis: RedisServer, changes: dict[str, Any]) -> None:
    replica = Replica(redis.url)
    store(redis, json.dumps({**valid(), **changes}).encode())
    assert replica.get() is None
    assert replica.results == ["error"]


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"rewrites": 1e999}',
        b"null",
        b"\xff\xfe",
        json.dumps([valid()]).encode(),
    ],
    ids=["deep", "long number", "infinite", "null", "no UTF-8", "a list of it"],
)
def test_monsters_are_misses(redis: RedisServer, value: bytes) -> None:
    replica = Replica(redis.url)
    store(redis, value)
    assert replica.get() is None
    assert replica.results == ["error"]


def test_an_entry_of_other_weights_is_never_served_wherever_it_lies(redis: RedisServer) -> None:
    stale = replace(JUDGED, weights_digest="0" * 64)
    digest = digest_of(KEY, "policy-1")
    store(redis, encode(stale, digest=digest))
    replica = Replica(redis.url)
    assert replica.get() is None
    replica.put()
    assert replica.get() == JUDGED
    assert replica.results == ["error", "hit"]


def test_a_key_of_another_type_is_a_miss_and_heals(redis: RedisServer) -> None:
    redis.ask("LPUSH", PREFIX + digest_of(KEY, "policy-1"), "x")
    replica = Replica(redis.url)
    assert replica.get() is None
    replica.put()
    assert replica.get() == JUDGED
    assert replica.results == ["error", "hit"]


@pytest.mark.parametrize(
    "judged",
    [
        replace(JUDGED, rewrites=(Rewrite("x", float("nan"), 0.5),)),
        replace(JUDGED, rewrites=(Rewrite("\ud800", -1.0, 0.5),)),
        replace(JUDGED, rewrites=()),
    ],
    ids=["not a number", "lone surrogate", "no reason"],
)
def test_what_could_not_be_read_is_not_written(redis: RedisServer, judged: Judged) -> None:
    replica = Replica(redis.url)
    replica.put(KEY, judged)
    assert redis.stored() == []
    assert replica.results == ["error"]


def test_writes_beyond_the_bound_are_dropped(redis: RedisServer) -> None:
    replica = Replica(redis.url)
    extra = 7

    async def scenario(cache: SharedCache) -> None:
        for number in range(shared_cache.MAX_PENDING_WRITES + extra):
            cache.put(replace(KEY, prompt=str(number)), JUDGED)
            assert len(cache._pending) <= shared_cache.MAX_PENDING_WRITES

    replica.run(scenario)
    assert replica.results == ["skipped"] * extra
    assert len(redis.stored()) == shared_cache.MAX_PENDING_WRITES


def test_many_at_once_wait_for_their_turn(redis: RedisServer) -> None:
    replica = Replica(redis.url)
    replica.put()

    async def scenario(cache: SharedCache) -> list[Judged | None]:
        return await asyncio.gather(*(cache.get(KEY) for _ in range(10 * shared_cache.MAX_READS)))

    assert set(map(id, replica.run(scenario))) - {id(None)}
    assert replica.results == ["hit"] * 10 * shared_cache.MAX_READS
    clients = redis.ask("INFO", "clients").decode()
    assert "connected_clients:1\r\n" in clients  # the one that asks: all others were closed


def test_closed_it_takes_and_gives_nothing_and_may_be_closed_again(redis: RedisServer) -> None:
    replica = Replica(redis.url)

    async def scenario(cache: SharedCache) -> None:
        cache.put(KEY, JUDGED)
        await cache.close()
        await cache.close()
        cache.put(KEY, JUDGED)
        assert await cache.get(KEY) is None
        assert not cache._pending

    replica.run(scenario)
    assert replica.results == ["skipped", "skipped"]
    assert len(redis.stored()) == 1  # what was pending was written before it closed


def test_a_password_opens_and_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    with running_redis("--requirepass", "s3cr/et") as server:
        server.options = ()
        right = Replica(f"redis://default:s3cr%2Fet@127.0.0.1:{server.port}/0")
        right.put()
        assert right.get() == JUDGED
        for url in (f"redis://:gu3ss@127.0.0.1:{server.port}", server.url):
            wrong = Replica(url)
            assert wrong.get() is None
            assert wrong.results == ["error"]
            wrong.put()
        assert right.run(_shown).isascii()
    assert "shared cache failed" in caplog.text
    assert "s3cr" not in caplog.text
    assert "gu3ss" not in caplog.text


async def _shown(cache: SharedCache) -> str:
    shown = f"{cache!r} {vars(cache)!r}"
    assert "s3cr" not in shown
    return shown


def test_who_asks_before_he_begins_is_told_why_it_would_be_for_nothing(redis: RedisServer) -> None:
    Replica(redis.url).run(lambda cache: cache.check())
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(CorewriteError, match="takes no writes: OutOfMemoryError"):
            Replica(redis.url).run(lambda cache: cache.check())
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")


def test_flushing_waits_for_the_writes_that_are_pending(redis: RedisServer) -> None:
    async def scenario(cache: SharedCache) -> None:
        await cache.flush()
        for number in range(20):
            cache.put(replace(KEY, prompt=str(number)), JUDGED)
        await cache.flush()
        assert not cache._pending

    Replica(redis.url).run(scenario)
    assert len([name for name in redis.stored() if not name.endswith(b"check")]) == 20


def test_a_unix_socket() -> None:
    with running_redis("--unixsocket", "redis.sock") as server:
        replica = Replica(f"unix://{server.folder}/redis.sock?db=3")
        replica.put()
        assert replica.get() == JUDGED
        assert server.stored() == []  # database 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:pa55@localhost",
        "redis://:pa55/w0rd@localhost:6379",
        "redis://localhost:99999",
        "redis://localhost?db=pa55",
        "redis://localhost?no_such_option=pa55",
    ],
)
def test_a_url_that_is_none_is_told_at_once_and_without_its_secrets(url: str) -> None:
    with pytest.raises(CorewriteError, match="REWRITE_REDIS_URL") as caught:
        Replica(url).open()
    assert "pa55" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_nothing_in_a_url_undoes_the_bounds(redis: RedisServer) -> None:
    url = f"{redis.url}?socket_timeout=99&retry_on_timeout=yes&max_connections=1&protocol=3"
    options = Replica(url).open()._pool.connection_kwargs
    assert (options["socket_timeout"], options["retry_on_timeout"], options["protocol"]) == (None, False, 2)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(CorewriteError, match=r"install corewrite\[redis\]"):
        Replica("redis://localhost").open()


def test_a_redis_that_keeps_failing_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica("redis://127.0.0.1:1")

    async def scenario(cache: SharedCache) -> None:
        for _ in range(4):
            await cache.get(KEY)

    with caplog.at_level(logging.WARNING):
        replica.run(scenario)
    assert replica.results == ["error"] * 4
    assert [record.message for record in caplog.records] == ["shared cache failed"]
