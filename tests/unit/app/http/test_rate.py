from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.http.client import ClientNames
from app.http.rate import Buckets


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def buckets(clock: Clock, *, per_s: float = 2, burst: int = 4, max_clients: int = 10) -> Buckets:
    return Buckets(per_s=per_s, burst=burst, max_clients=max_clients, clock=clock)


def asks(bucket: Buckets, client: str) -> bool:
    if bucket.wait_s(client) > 0:
        return False
    bucket.take(client)
    return True


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    bucket = buckets(clock)
    assert [asks(bucket, "a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert bucket.wait_s("a") == pytest.approx(0.5)
    assert asks(bucket, "b")
    clock.now_s += 0.5
    assert [asks(bucket, "a") for _ in range(2)] == [True, False]
    clock.now_s += 100
    assert [asks(bucket, "a") for _ in range(6)] == [True] * 4 + [False] * 2


@given(
    st.lists(st.floats(min_value=0, max_value=3), max_size=60),
    st.sampled_from([0.1, 1.0, 7.5]),
    st.integers(min_value=1, max_value=5),
)
def test_no_client_ever_gets_more_than_burst_and_rate_allow(
    pauses: list[float], per_s: float, burst: int
) -> None:
    clock = Clock()
    bucket = buckets(clock, per_s=per_s, burst=burst)
    allowed: list[float] = []
    for pause in pauses:
        clock.now_s += pause
        wait = bucket.wait_s("a")
        if asks(bucket, "a"):
            allowed.append(clock.now_s)
        else:  # and what it is told to wait is enough
            clock.now_s += wait + 1e-6
            assert asks(bucket, "a")
            allowed.append(clock.now_s)
    for first, begin in enumerate(allowed):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + (allowed[last] - begin) * per_s + 1e-6


def test_a_batch_is_paid_back() -> None:
    clock = Clock()
    bucket = buckets(clock)
    bucket.take("a")
    bucket.take("a", 9)
    assert bucket.wait_s("a") == pytest.approx(3.5)


def test_a_hundred_thousand_clients_take_the_room_of_a_few() -> None:
    clock = Clock()
    bucket = buckets(clock, max_clients=1000)
    for _ in range(4):
        assert asks(bucket, "busy")
    for number in range(100_000):
        assert asks(bucket, f"client {number}")
        assert not asks(bucket, "busy")
        bucket.take("busy", 0)  # heard of, so not forgotten
        assert len(bucket) <= 1000
    assert not asks(bucket, "busy")


def scope(*headers: tuple[bytes, bytes], client: str | None = "192.0.2.1") -> dict[str, object]:
    return {"headers": list(headers), "client": (client, 1234) if client else None}


@pytest.mark.parametrize(
    ("header", "given", "name"),
    [
        (None, scope((b"x-real-ip", b"203.0.113.9")), "192.0.2.1"),
        (None, scope((b"x-forwarded-for", b"203.0.113.9")), "192.0.2.1"),
        ("X-Real-IP", scope((b"x-real-ip", b" 203.0.113.9 ")), "203.0.113.9"),
        ("x-real-ip", scope((b"x-real-ip", b"claimed"), (b"x-real-ip", b"appended")), "appended"),
        ("x-real-ip", scope((b"x-real-ip", b"")), "192.0.2.1"),
        ("x-real-ip", scope(), "192.0.2.1"),
        (None, scope(client="2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"),
        (None, scope(client="fe80::1%eth0"), "fe80::/64"),
        (None, scope(client=None), "unknown"),
    ],
)
def test_whose_request_it_is(header: str | None, given: dict[str, object], name: str) -> None:
    assert ClientNames(header).name(given) == name


def test_long_names_take_no_more_room_and_stay_apart() -> None:
    names = ClientNames("x-client")
    one, two = (names.name(scope((b"x-client", b"\xff" * 30_000 + end))) for end in (b"1", b"2"))
    assert one != two
    assert max(len(one), len(two)) <= 71
