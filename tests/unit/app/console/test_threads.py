"""What blocks holds up nothing else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.console.threads import MOST, Threads
from app.errors import StoreError


def test_what_hangs_is_given_up_and_delays_nothing_else() -> None:
    released = threading.Event()

    async def story() -> None:
        pool = Threads(patience_s=2.0)
        hanging = [pool.run("the registry", released.wait) for _ in range(MOST + 1)]
        for answer in await asyncio.gather(*hanging, return_exceptions=True):
            assert isinstance(answer, StoreError)
            assert str(answer) == "the registry has not answered within 2 s"
        assert await pool.run("the store", lambda one, two: one + two, 1, two=2) == 3
        released.set()
        await pool.close()

    asyncio.run(story())


def test_what_it_raises_is_raised() -> None:
    async def story() -> None:
        pool = Threads()
        with pytest.raises(ZeroDivisionError):
            await pool.run("the page", lambda: 1 / 0)
        await pool.close()

    asyncio.run(story())
