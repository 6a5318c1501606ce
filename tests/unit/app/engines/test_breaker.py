from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.engines.breaker import Breaker


def test_failures_in_a_row_open_it_and_a_probe_closes_it() -> None:
    breaker = Breaker(max_failures=2, open_s=5.0)
    breaker.failed(0.0)
    assert breaker.state == "closed"
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.allows(1.0)
    breaker.failed(2.0)
    assert breaker.state == "open"
    assert not breaker.allows(6.99)
    assert breaker.allows(7.0)
    assert breaker.state == "half_open"
    assert not breaker.allows(7.0)  # one probe at a time
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.allows(7.0)


def test_a_failed_probe_opens_it_again_for_as_long() -> None:
    breaker = Breaker(max_failures=1, open_s=5.0)
    breaker.failed(0.0)
    assert breaker.allows(5.0)
    breaker.failed(6.0)
    assert breaker.state == "open"
    assert not breaker.allows(10.9)
    assert breaker.allows(11.0)


def test_a_probe_that_is_taken_back_leaves_room_for_the_next() -> None:
    breaker = Breaker(max_failures=1, open_s=5.0)
    breaker.failed(0.0)
    assert breaker.allows(5.0)
    breaker.gave_up()
    assert breaker.state == "open"
    assert breaker.allows(5.0)


@given(st.integers(1, 5), st.lists(st.sampled_from(["gave_up", "succeeded"]), max_size=50))
def test_callers_that_give_up_never_open_it(max_failures: int, events: list[str]) -> None:
    breaker = Breaker(max_failures=max_failures, open_s=1.0)
    for event in events:
        assert breaker.allows(0.0)
        getattr(breaker, event)()
    assert breaker.state == "closed"


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_it_opens_exactly_after_that_many_failures_in_a_row(
    max_failures: int, events: list[tuple[bool, float]]
) -> None:
    breaker, now, row = Breaker(max_failures=max_failures, open_s=2.0), 0.0, 0
    for fails, later in events:
        now += later
        if not breaker.allows(now):
            assert row >= max_failures
            continue
        if fails:
            breaker.failed(now)
            row += 1
        else:
            breaker.succeeded()
            row = 0
        assert (breaker.state == "open") == (row >= max_failures)
