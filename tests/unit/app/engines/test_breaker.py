from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.engines.breaker import Breaker, Pass


def admit(breaker: Breaker, now_s: float) -> Pass:
    given = breaker.admit(now_s)
    assert given is not None
    return given


def opened(open_s: float = 5.0) -> Breaker:
    """One that opened at 0."""
    breaker = Breaker(max_failures=1, open_s=open_s)
    breaker.failed(admit(breaker, 0.0), 0.0)
    assert breaker.state == "open"
    return breaker


def test_failures_in_a_row_open_it_and_a_probe_closes_it() -> None:
    breaker = Breaker(max_failures=2, open_s=5.0)
    breaker.failed(admit(breaker, 0.0), 0.0)
    assert breaker.state == "closed"
    breaker.succeeded(admit(breaker, 0.0))
    breaker.failed(admit(breaker, 1.0), 1.0)
    assert breaker.state == "closed"
    breaker.failed(admit(breaker, 2.0), 2.0)
    assert breaker.state == "open"
    assert breaker.admit(6.99) is None
    probe = admit(breaker, 7.0)
    assert breaker.state == "half_open"
    assert breaker.admit(7.0) is None  # one probe at a time
    breaker.succeeded(probe)
    assert breaker.state == "closed"
    breaker.failed(admit(breaker, 7.0), 7.0)
    assert breaker.state == "closed"  # counted from none again


def test_a_failed_probe_opens_it_again_for_as_long() -> None:
    breaker = opened()
    breaker.failed(admit(breaker, 5.0), 6.0)
    assert breaker.state == "open"
    assert breaker.admit(10.9) is None
    admit(breaker, 11.0)


def test_a_probe_that_is_taken_back_leaves_room_for_the_next() -> None:
    breaker = opened()
    breaker.gave_up(admit(breaker, 5.0))
    assert breaker.state == "open"
    admit(breaker, 5.0)


def test_requests_from_before_it_opened_decide_nothing() -> None:
    breaker = Breaker(max_failures=1, open_s=5.0)
    late = [admit(breaker, 0.0) for _ in range(4)]
    breaker.failed(late[0], 0.0)
    breaker.failed(late[1], 4.0)  # does not prolong the pause
    probe = admit(breaker, 5.0)
    breaker.gave_up(late[2])  # is not the probe: no second one goes through
    assert breaker.admit(5.0) is None
    breaker.succeeded(late[3])
    assert breaker.state == "half_open"
    breaker.failed(probe, 6.0)
    assert breaker.state == "open"


def test_what_is_replaced_starts_with_nothing_counted_and_old_requests_count_no_more() -> None:
    breaker = Breaker(max_failures=2, open_s=5.0)
    breaker.failed(admit(breaker, 0.0), 0.0)
    old = admit(breaker, 0.0)
    breaker.reset()
    breaker.failed(old, 1.0)
    breaker.failed(admit(breaker, 1.0), 1.0)
    assert breaker.state == "closed"
    breaker = opened()
    breaker.reset()
    assert breaker.state == "closed"


@given(st.integers(1, 5), st.lists(st.sampled_from(["gave_up", "succeeded"]), max_size=50))
def test_callers_that_give_up_never_open_it(max_failures: int, events: list[str]) -> None:
    breaker = Breaker(max_failures=max_failures, open_s=1.0)
    for event in events:
        getattr(breaker, event)(admit(breaker, 0.0))
    assert breaker.state == "closed"


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_it_opens_exactly_after_that_many_failures_in_a_row(
    max_failures: int, events: list[tuple[bool, float]]
) -> None:
    breaker, now, row = Breaker(max_failures=max_failures, open_s=2.0), 0.0, 0
    for fails, later in events:
        now += later
        admitted = breaker.admit(now)
        if admitted is None:
            assert row >= max_failures
            continue
        if fails:
            breaker.failed(admitted, now)
            row += 1
        else:
            breaker.succeeded(admitted)
            row = 0
        assert (breaker.state == "open") == (row >= max_failures)
