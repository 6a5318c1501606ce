"""Sessions of the console: what is believed of a cookie."""

from __future__ import annotations

import pytest

from app.console.session import LASTS_S, Session, Sessions


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_session_is_known_again_by_another_replica_until_it_ends(clock: Clock) -> None:
    cookie = Sessions("secret", clock).begin()
    other = Sessions("secret", clock)
    assert other.read(cookie) is not None
    clock.now += LASTS_S - 1
    assert other.read(cookie) is not None
    clock.now += 1
    assert other.read(cookie) is None


def test_another_token_ends_all_sessions(clock: Clock) -> None:
    assert Sessions("another", clock).read(Sessions("secret", clock).begin()) is None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_what_was_altered_is_no_session(clock: Clock, part: int) -> None:
    sessions = Sessions("secret", clock)
    parts = sessions.begin().split(".")
    last = parts[part][-1]
    parts[part] = parts[part][:-1] + ("1" if last != "1" else "2")
    assert sessions.read(".".join(parts)) is None


@pytest.mark.parametrize("cookie", ["", "1.2.3", "x" * 5000, "²000000000." + "0" * 32 + "." + "0" * 64])
def test_what_is_no_cookie_of_ours_is_no_session(clock: Clock, cookie: str) -> None:
    assert Sessions("secret", clock).read(cookie) is None


def test_a_form_token_is_of_one_session_and_no_cookie(clock: Clock) -> None:
    sessions = Sessions("secret", clock)
    one, other = (sessions.read(sessions.begin()) for _ in range(2))
    assert isinstance(one, Session)
    assert isinstance(other, Session)
    token = sessions.form_token(one)
    assert sessions.is_form_token(one, token)
    assert not sessions.is_form_token(other, token)
    assert not sessions.is_form_token(one, "")
    assert not sessions.is_form_token(one, "ü" * 64)
    assert sessions.read(f"{one.ends}.{one.nonce}.{token}") is None
