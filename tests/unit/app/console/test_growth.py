"""Where the lines of a picture go."""

from __future__ import annotations

import pytest

from app.console.growth import HEIGHT, LEFT, TOP, WIDTH, Point, chart


def pairs(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (one.split(",") for one in path.split())]


GROWING = [
    Point(1_000, 0.30, None, None),
    Point(10_000, 0.10, -0.20, 0.50),
    Point(100_000, 0.08, 0.02, 0.14),
]


def test_without_a_look_there_is_no_picture() -> None:
    assert chart([], [], margin=None, harm=0.0) is None


def test_to_the_right_it_is_by_the_logarithm_and_upwards_by_the_value() -> None:
    found = chart(GROWING, [(2, 10_000)], margin=0.1, harm=0.05)
    assert found is not None
    gain = pairs(found.gain)
    assert [x for x, _ in gain] == pytest.approx([0, gain[2][0] / 2, gain[2][0]], abs=0.1)
    (_, first), (_, second), (_, third) = gain
    assert first < second < third  # a smaller gain is further down
    low, high = pairs(found.low), pairs(found.high)
    assert high[2][1] < gain[2][1] < low[2][1]
    assert found.zero > TOP + gain[2][1]  # the gain is above 0
    assert found.margin is not None
    assert found.harm is not None
    assert found.zero < found.harm < found.margin < HEIGHT
    assert found.steps == [(pytest.approx(LEFT + gain[1][0], abs=0.1), 2)]
    assert found.last == pytest.approx(gain[2], abs=0.1)


def test_an_end_that_there_is_not_is_out_of_sight() -> None:
    found = chart(GROWING, [], margin=None, harm=0.0)
    assert found is not None
    assert pairs(found.low)[0][1] > HEIGHT
    assert pairs(found.high)[0][1] < 0
    assert pairs(found.band) == [*pairs(found.high), *reversed(pairs(found.low))]


def test_ticks_are_round_and_in_the_picture() -> None:
    found = chart(GROWING, [], margin=0.1, harm=0.0)
    assert found is not None
    assert [tick.value for tick in found.across] == [1_000, 3_000, 10_000, 30_000, 100_000]
    assert [round(tick.value, 9) for tick in found.up] == [-0.2, 0.0, 0.2, 0.4]
    assert all(LEFT - 1 <= tick.at <= WIDTH for tick in found.across)


@pytest.mark.parametrize(
    "points",
    [
        [Point(7, None, None, None)],
        [Point(7, 0.0, None, None)],
        [Point(7, 0.1, 0.0, 0.2), Point(7, 0.1, 0.0, 0.2)],
        [Point(1, -1e9, None, None), Point(10**9, 1e-12, -1e-12, 1e12)],
        [Point(10.0**power, 0.1, None, None) for power in range(20)],
    ],
)
def test_whatever_was_counted_can_be_drawn(points: list[Point]) -> None:
    found = chart(points, [], margin=0.02, harm=0.0)
    assert found is not None
    for x, y in (*pairs(found.band), *pairs(found.gain)):
        assert -10 <= x <= WIDTH
        assert -HEIGHT <= y <= 2 * HEIGHT
    assert len(found.across) <= 6
