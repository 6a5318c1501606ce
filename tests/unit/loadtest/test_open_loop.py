from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from loadtest.open_loop import closed_loop, open_loop, percentile, poisson_arrivals, zipf


def test_arrivals_are_seeded_ascending_and_at_the_rate() -> None:
    times = poisson_arrivals(50.0, 100.0, seed=1)
    assert times == poisson_arrivals(50.0, 100.0, seed=1) != poisson_arrivals(50.0, 100.0, seed=2)
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 100.0
    assert len(times) == pytest.approx(5000, rel=0.05)


def test_gaps_between_arrivals_vary_as_much_as_their_mean() -> None:
    times = poisson_arrivals(10.0, 1000.0, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)


def test_the_second_of_a_zipf_trace_comes_half_as_often_as_the_first() -> None:
    counts = Counter(itertools.islice(zipf(1000, 1.0, seed=1), 100_000))
    assert max(counts) < 1000
    assert counts[1] == pytest.approx(counts[0] / 2, rel=0.1)
    assert counts[9] == pytest.approx(counts[0] / 10, rel=0.2)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        ([5.0], 0, 5.0),
        ([1.0], 99, 1.0),
    ],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_stall_is_charged_to_every_request_it_delays() -> None:
    async def scenario() -> list[float]:
        free = asyncio.Lock()

        async def send(stalls: bool) -> None:  # noqa: FBT001 -- the item
            async with free:
                await asyncio.sleep(0.3 if stalls else 0.0)

        return await open_loop(send, [True, False, False], [0.0, 0.1, 0.2])

    first, second, third = asyncio.run(scenario())
    assert first >= 0.3
    assert second == pytest.approx(first - 0.1, abs=0.05)
    assert third == pytest.approx(first - 0.2, abs=0.05)


def test_a_blocked_client_is_charged_too() -> None:
    import time  # noqa: PLC0415

    async def send(block_s: float) -> None:
        time.sleep(block_s)  # noqa: ASYNC251 -- that the loop stands still is the point

    latencies = asyncio.run(open_loop(send, [0.2, 0.0], [0.0, 0.05]))
    assert latencies[1] >= 0.14


def test_closed_loop_clients_wait_for_their_answers() -> None:
    running, most = 0, 0

    async def send(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    rate = asyncio.run(closed_loop(send, itertools.count(), clients=4, seconds=0.2))
    assert most == 4
    assert 100 < rate <= 400


def test_a_trace_that_ends_ends_the_load_and_a_failure_is_raised() -> None:
    async def fail(_: int) -> None:
        raise ConnectionError

    async def nothing(_: int) -> None:
        return

    assert asyncio.run(closed_loop(nothing, range(10), clients=3, seconds=60.0)) > 0
    with pytest.raises(ExceptionGroup):
        asyncio.run(closed_loop(fail, range(10), clients=3, seconds=60.0))
