"""Estimates out of buckets."""

from __future__ import annotations

import math

import pytest

from app.console.quantiles import quantile

BUCKETS = [(0.1, 0.0), (0.2, 50.0), (0.4, 90.0), (math.inf, 100.0)]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 0.2), (0.25, 0.15), (0.9, 0.4), (0.7, 0.3), (0.95, 0.4), (1.0, 0.4), (0.0, 0.1)],
)
def test_within_a_bucket_it_is_a_straight_line(share: float, expected: float) -> None:
    assert quantile(BUCKETS, share) == pytest.approx(expected)


def test_of_nothing_there_is_none() -> None:
    assert quantile([], 0.5) is None
    assert quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5) is None
