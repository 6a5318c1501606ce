from __future__ import annotations

import itertools

import pytest

from loadtest.schedule import Piece, arrivals, rate_at

RISING = (Piece(10.0, 5.0, 5.0), Piece(100.0, 0.0, 40.0), Piece(10.0, 0.0, 0.0), Piece(10.0, 50.0, 50.0))


def test_arrivals_are_seeded_ascending_and_as_many_as_expected() -> None:
    times = arrivals(RISING, seed=1)
    assert times == arrivals(RISING, seed=1) != arrivals(RISING, seed=2)
    assert times == sorted(times)
    assert times[0] > 0.0
    assert times[-1] < 130.0
    assert len(times) == pytest.approx(50 + 2000 + 0 + 500, rel=0.05)


def test_the_rate_is_that_of_each_piece() -> None:
    times = arrivals(RISING, seed=3)

    def between(start: float, end: float) -> int:
        return sum(start <= time < end for time in times)

    assert between(110.0, 120.0) == 0
    assert between(120.0, 130.0) == pytest.approx(500, rel=0.15)
    # Of a line from 0 the last quarter has 7 of 16 parts, the first one.
    assert between(85.0, 110.0) / between(10.0, 110.0) == pytest.approx(7 / 16, abs=0.04)
    assert between(10.0, 35.0) / between(10.0, 110.0) == pytest.approx(1 / 16, abs=0.02)


def test_gaps_of_a_constant_rate_vary_as_much_as_their_mean() -> None:
    times = arrivals([Piece(1000.0, 10.0, 10.0)], seed=4)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.1, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_falling_rate_ends_where_it_should() -> None:
    times = arrivals([Piece(10.0, 100.0, 0.0)], seed=5)
    assert len(times) == pytest.approx(500, rel=0.15)
    assert max(times) < 10.0


@pytest.mark.parametrize(
    ("at", "rate"), [(0.0, 5.0), (9.99, 5.0), (60.0, 20.0), (115.0, 0.0), (125.0, 50.0), (130.0, 0.0)]
)
def test_the_intended_rate(at: float, rate: float) -> None:
    assert rate_at(RISING, at) == pytest.approx(rate)


@pytest.mark.parametrize("piece", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -0.1)])
def test_a_piece_that_is_none_is_refused(piece: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="a piece"):
        Piece(*piece)
