"""A beam over streams that run ahead is the beam over one step at a time."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engines.decoding import Beam, Hypothesis
from app.engines.lookahead import Lookahead
from app.errors import EngineFailedError, EngineUnavailableError

END, VOCABULARY, LONGEST = 0, 7, 6
Row = tuple[int, ...]


def distribution(seed: int, row: Row) -> dict[int, float]:
    """What a model named by `seed` thinks comes after a row."""
    weights = random.Random(f"{seed}{row}")
    drawn = [weights.random() ** 3 + 1e-9 for _ in range(VOCABULARY)]
    return {token: math.log(weight / sum(drawn)) for token, weight in enumerate(drawn)}


class Model:
    """Streams of that model; `after` of them are given before `error` is raised."""

    def __init__(self, seed: int, *, error: Exception | None = None, after: int = 0) -> None:
        self.seed, self.error, self.left = seed, error, after
        self.streams: list[Row] = []
        self.open = 0

    async def __call__(self, row: Row) -> AsyncIterator[tuple[int, dict[int, float]]]:
        self.streams.append(row)
        self.open += 1
        try:
            while len(row) < LONGEST:
                await asyncio.sleep(0)
                if self.error is not None:
                    self.left -= 1
                    if self.left < 0:
                        raise self.error
                here = distribution(self.seed, row)
                token = max(here, key=lambda token: here[token])
                yield token, here
                if token == END:
                    return
                row = (*row, token)
        finally:
            self.open -= 1


def beam(width: int) -> Beam:
    return Beam(width=width, best=width, end_id=END, max_tokens=LONGEST)


def stepwise(seed: int, width: int) -> tuple[list[Hypothesis], int]:
    """The search with one request a row and step, and how many that takes."""
    search, rows, requests = beam(width), [()], 0
    while rows:
        requests += len(rows)
        rows = [(*rows[r], t) for r, t in search.advance_sparse([distribution(seed, row) for row in rows])]
    return search.results(), requests


async def searched(model: Model, width: int) -> list[Hypothesis]:
    lookahead, search = Lookahead(model), beam(width)
    rows: list[Row] = [()]
    try:
        while rows:
            found = await lookahead.after(rows)
            rows = [(*rows[row], token) for row, token in search.advance_sparse(found)]
    finally:
        lookahead.close()
    return search.results()


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_it_finds_what_one_step_at_a_time_finds_with_fewer_requests(seed: int, width: int) -> None:
    async def scenario() -> None:
        model = Model(seed)
        expected, requests = stepwise(seed, width)
        assert await searched(model, width) == expected
        assert len(model.streams) == len(set(model.streams)) <= requests
        await asyncio.sleep(0.001)
        assert model.open == 0  # nothing runs on after the search

    asyncio.run(scenario())


@given(st.integers(0, 1000), st.integers(0, 12))
def test_a_stream_that_breaks_breaks_the_search_that_needs_it(seed: int, after: int) -> None:
    async def scenario() -> None:
        model = Model(seed, error=EngineFailedError("broken"), after=after)
        [outcome] = await asyncio.gather(searched(model, 3), return_exceptions=True)
        assert isinstance(outcome, EngineFailedError) or outcome == stepwise(seed, 3)[0]
        if after == 0:
            assert isinstance(outcome, EngineFailedError)
        await asyncio.sleep(0.001)
        assert model.open == 0

    asyncio.run(scenario())


def test_a_stream_that_ends_too_early_is_an_engine_that_stopped() -> None:
    async def short(_row: Row) -> AsyncIterator[tuple[int, dict[int, float]]]:
        yield 3, {3: -0.1, 2: -3.0}

    async def scenario() -> None:
        lookahead = Lookahead(short)
        await lookahead.after([()])
        with pytest.raises(EngineUnavailableError, match="stopped before"):
            await lookahead.after([(3,)])

    asyncio.run(scenario())


def test_a_search_that_is_cancelled_stops_its_streams() -> None:
    async def scenario() -> None:
        stopped = asyncio.Event()

        async def endless(_row: Row) -> AsyncIterator[tuple[int, dict[int, float]]]:
            try:
                await asyncio.sleep(60)
                yield 3, {3: -0.1}
            finally:
                stopped.set()

        lookahead = Lookahead(endless)
        waiting = asyncio.create_task(lookahead.after([(), (1,)]))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        lookahead.close()
        async with asyncio.timeout(5):
            await stopped.wait()

    asyncio.run(scenario())
