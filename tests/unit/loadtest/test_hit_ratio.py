from __future__ import annotations

import itertools

import numpy as np
import pytest

from loadtest.hit_ratio import lru_hit_ratio, simulated_hit_ratio, zipf_shares
from loadtest.open_loop import zipf


@pytest.mark.parametrize(("exponent", "entries"), [(0.6, 100), (1.0, 50), (1.0, 500), (1.2, 20)])
def test_it_is_what_a_simulated_cache_does(exponent: float, entries: int) -> None:
    trace = itertools.islice(zipf(2000, exponent, seed=7), 60_000)
    simulated = simulated_hit_ratio(trace, entries, warm=10_000)
    assert lru_hit_ratio(zipf_shares(2000, exponent), entries) == pytest.approx(simulated, abs=0.01)


def test_of_entries_that_are_all_alike_it_is_the_part_that_fits() -> None:
    assert lru_hit_ratio(np.full(1000, 1e-3), 250) == pytest.approx(0.25, abs=1e-3)


def test_its_ends() -> None:
    shares = zipf_shares(100, 1.0)
    assert lru_hit_ratio(shares, 0) == 0.0
    assert lru_hit_ratio(shares, 100) == 1.0
    assert 0.99 > lru_hit_ratio(shares, 90) > lru_hit_ratio(shares, 10) > 0.1


def test_shares_are_those_of_the_law() -> None:
    shares = zipf_shares(50, 1.0)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[9] == pytest.approx(10.0)


def test_the_simulated_cache_lets_go_of_what_was_longest_unused() -> None:
    assert simulated_hit_ratio([1, 2, 1, 3, 1, 2], 2, warm=0) == pytest.approx(2 / 6)
    assert simulated_hit_ratio([1, 2, 3], 2, warm=3) == 0.0
