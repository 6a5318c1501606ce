from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.errors import DrainingError, OverloadedError
from app.rewrite.admission import Admission


def gate(shed: Any = None, **options: Any) -> Admission:
    options = {"max_inflight": 1, "max_waiting": 1, "max_wait_s": 0.05, **options}
    return Admission(**options, on_shed=(shed if shed is not None else []).append)


def test_the_first_enter_at_once_and_the_next_wait_in_order() -> None:
    async def scenario() -> None:
        admission, order = gate(max_waiting=5, max_wait_s=5), []

        async def one(name: str) -> None:
            assert await admission.enter(budget_s=5)
            order.append(name)
            await asyncio.sleep(0)
            admission.leave()

        tasks = [asyncio.create_task(one(name)) for name in "abcd"]
        await asyncio.sleep(0)
        assert (admission.inflight, admission.waiting) == (1, 3)
        await asyncio.gather(*tasks)
        assert order == list("abcd")
        assert (admission.inflight, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_full_queue_sheds_at_once() -> None:
    async def scenario() -> None:
        shed = []
        admission = gate(shed, max_waiting=0, retry_after_s=7)
        await admission.enter(budget_s=5)
        with pytest.raises(OverloadedError) as caught:
            await admission.enter(budget_s=5)
        assert caught.value.retry_after_s == 7
        assert shed == ["queue_full"]

    asyncio.run(scenario())


def test_a_long_wait_sheds_but_a_spent_budget_does_not() -> None:
    async def scenario() -> None:
        shed = []
        admission = gate(shed, max_waiting=5)
        await admission.enter(budget_s=5)
        with pytest.raises(OverloadedError):
            await admission.enter(budget_s=5)
        assert shed == ["queue_timeout"]
        assert await admission.enter(budget_s=0.01) is False
        assert await admission.enter(budget_s=0) is False
        assert shed == ["queue_timeout"]
        assert (admission.inflight, admission.waiting) == (1, 0)

    asyncio.run(scenario())


def test_batch_items_are_neither_shed_by_the_queue_nor_by_draining() -> None:
    async def scenario() -> None:
        admission = gate(max_waiting=0, max_wait_s=0)
        await admission.enter(budget_s=5)
        admission.drain()
        item = asyncio.create_task(admission.enter(budget_s=5, patient=True))
        await asyncio.sleep(0.01)
        admission.leave()
        assert await item is True

    asyncio.run(scenario())


def test_draining_refuses_new_work_serves_the_old_and_ends_idle() -> None:
    async def scenario() -> None:
        shed = []
        admission = gate(shed, max_waiting=1, max_wait_s=5)
        await admission.enter(budget_s=5)
        waiting = asyncio.create_task(admission.enter(budget_s=5))
        await asyncio.sleep(0)
        admission.drain()
        with pytest.raises(DrainingError):
            await admission.enter(budget_s=5)
        assert shed == ["draining"]
        idle = asyncio.create_task(admission.wait_idle())
        admission.leave()
        assert await waiting is True
        assert not idle.done()
        admission.leave()
        await asyncio.wait_for(idle, 1)

    asyncio.run(scenario())


def test_cancelled_waiters_lose_no_place() -> None:
    async def scenario() -> None:
        admission = gate(max_waiting=9, max_wait_s=5)
        await admission.enter(budget_s=5)
        tasks = [asyncio.create_task(admission.enter(budget_s=5)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert admission.waiting == 2
        admission.leave()
        tasks[1].cancel()  # the place was handed over in this very turn of the loop
        await asyncio.gather(*tasks[:2], return_exceptions=True)
        assert await tasks[2] is True
        admission.leave()
        assert (admission.inflight, admission.waiting) == (0, 0)

    asyncio.run(scenario())
