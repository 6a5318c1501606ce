from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.rollout.postgres import bounded

if TYPE_CHECKING:
    from collections.abc import Generator


def talk() -> Generator[str, int, str]:
    heard = []
    while not heard or heard[-1]:
        heard.append((yield f"ready? {len(heard)}"))
    return f"heard {heard}"


def test_it_does_as_the_other_does() -> None:
    generator = bounded(talk(), 1000)
    assert next(generator) == "ready? 0"
    assert [generator.send(1), generator.send(2)] == ["ready? 1", "ready? 2"]
    with pytest.raises(StopIteration) as done:
        generator.send(0)  # nothing was ready, and there is time
    assert done.value.value == "heard [1, 2, 0]"


def test_when_time_is_up_what_is_ready_is_still_read_and_nothing_is_waited_for() -> None:
    generator = bounded(talk(), -1)
    next(generator)
    assert generator.send(1) == "ready? 1"
    with pytest.raises(TimeoutError):
        generator.send(0)
