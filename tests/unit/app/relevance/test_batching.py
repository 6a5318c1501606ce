from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RelevanceError
from app.relevance.base import Floats
from app.relevance.batching import Batcher, buckets
from app.relevance.texts import Row


class Lengths:
    """Answers each row's length, and can be held and broken."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.breaks_at = -1

    def run(self, rows: Sequence[Row]) -> Floats:
        self.entered.set()
        assert self.gate.wait(10)
        self.runs.append(len(rows))
        if any(len(row.ids) == self.breaks_at for row in rows):
            raise ValueError("a broken row")
        return np.array([len(row.ids) for row in rows], np.float32)


def rows(*lengths: int) -> list[Row]:
    return [Row([1] * length, [0] * length) for length in lengths]


@given(st.lists(st.integers(1, 300), max_size=200))
def test_every_row_is_in_one_bucket_and_none_is_too_large_or_mostly_padding(lengths: list[int]) -> None:
    found = buckets(lengths, most=512)
    assert sorted(place for group in found for place in group) == list(range(len(lengths)))
    for group in found:
        longest = max(lengths[place] for place in group)
        if len(group) > 1:
            assert len(group) * longest <= 512
            padding = sum(longest - lengths[place] for place in group)
            assert padding <= 0.15 * len(group) * longest + 1e-9


def test_answers_come_in_the_order_of_the_rows_and_equal_lengths_share_a_run() -> None:
    async def scenario() -> None:
        head, batcher = Lengths(), Batcher(max_rows=100)
        found = await batcher.run(head, lambda: rows(9, 2, 9, 5, 2), 5)
        assert found.tolist() == [9, 2, 9, 5, 2]
        assert head.runs == [2, 1, 2]
        batcher.close()

    asyncio.run(scenario())


def test_callers_share_runs_and_one_failure_stays_with_its_rows() -> None:
    async def scenario() -> None:
        head, batcher = Lengths(), Batcher(max_rows=100)
        head.gate.clear()
        first = asyncio.create_task(batcher.run(head, lambda: rows(1), 1))
        await asyncio.to_thread(head.entered.wait)
        head.breaks_at = 7
        others = [
            asyncio.create_task(batcher.run(head, lambda n=n: rows(n, 40), 2))  # type: ignore[misc]
            for n in (3, 7, 3)
        ]
        await asyncio.sleep(0)
        head.gate.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert [one.tolist() for one in found if not isinstance(one, BaseException)] == [
            [1],
            [3, 40],
            [3, 40],
        ]
        assert isinstance(found[2], RelevanceError)
        assert "a broken row" in str(found[2])
        assert head.runs == [1, 2, 1, 3]
        batcher.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answers", "says"),
    [([[1.0]] * 3, "argument 2 is longer"), ([[1.0], [1.0, 2.0]], "same shape")],
    ids=["more results than rows", "results of different shapes"],
)
def test_a_head_that_answers_nonsense_fails_its_caller_and_serves_the_next(
    answers: list[list[float]], says: str
) -> None:
    class Nonsense:
        def run(self, _rows: Sequence[Row]) -> Floats:
            return [np.array(one, np.float32) for one in answers]  # type: ignore[return-value]

    async def scenario() -> None:
        batcher = Batcher(max_rows=100)
        with pytest.raises(RelevanceError, match=says):
            await batcher.run(Nonsense(), lambda: rows(2, 2), 2)
        assert (await batcher.run(Lengths(), lambda: rows(3), 1)).tolist() == [3]
        batcher.close()

    asyncio.run(scenario())


def test_what_a_caller_gave_up_is_not_computed() -> None:
    async def scenario() -> None:
        head, batcher = Lengths(), Batcher(max_rows=100)
        head.gate.clear()
        first = asyncio.create_task(batcher.run(head, lambda: rows(1), 1))
        await asyncio.to_thread(head.entered.wait)
        made: list[int] = []
        given_up = asyncio.create_task(batcher.run(head, lambda: made.append(1) or rows(5, 6), 2))
        kept = asyncio.create_task(batcher.run(head, lambda: rows(6), 1))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        head.gate.set()
        await asyncio.gather(first, kept)
        assert (head.runs, made) == ([1, 1], [])
        batcher.close()

    asyncio.run(scenario())


def test_it_refuses_what_it_has_no_room_for_and_whatever_comes_after_its_end() -> None:
    async def scenario() -> None:
        head, batcher = Lengths(), Batcher(max_rows=3)
        head.gate.clear()
        first = asyncio.create_task(batcher.run(head, lambda: rows(1), 1))
        await asyncio.to_thread(head.entered.wait)
        waiting = asyncio.create_task(batcher.run(head, lambda: rows(1, 1), 2))
        await asyncio.sleep(0)
        with pytest.raises(RelevanceError, match="2 rows wait"):
            await batcher.run(head, lambda: rows(1, 1), 2)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        while not batcher._closed:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0)
        head.gate.set()
        assert (await first).tolist() == [1]
        with pytest.raises(RelevanceError, match="closed"):
            await waiting
        await closing
        with pytest.raises(RelevanceError, match="closed"):
            await batcher.run(head, lambda: rows(1), 1)

    asyncio.run(scenario())


def test_a_text_that_cannot_be_read_fails_its_caller_alone() -> None:
    def unreadable() -> list[Row]:
        raise ValueError("no text")

    async def scenario() -> None:
        head, batcher = Lengths(), Batcher(max_rows=10)
        with pytest.raises(RelevanceError, match="no text"):
            await batcher.run(head, unreadable, 1)
        assert (await batcher.run(head, lambda: rows(2), 1)).tolist() == [2]
        batcher.close()

    asyncio.run(scenario())
