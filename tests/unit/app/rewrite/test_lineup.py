from __future__ import annotations

import asyncio

import pytest
from fakes import FakeCheckpoint

from app.rewrite.lineup import Lineup, Serving


def serving(name: str) -> Serving:
    return Serving(FakeCheckpoint(id=name), engine=None)  # type: ignore[arg-type]


def test_a_hold_keeps_what_it_took_through_a_switch() -> None:
    async def scenario() -> None:
        old, new, seen = serving("old"), serving("new"), []
        lineup = Lineup(old, on_switch=lambda before, after: seen.append((before, after)))
        async with lineup.hold() as held:
            lineup.switch(new)
            assert held is old
            async with lineup.hold() as later:
                assert later is new
        assert lineup.current is new
        assert seen == [(old, new)]

    asyncio.run(scenario())


def test_idle_waits_for_the_last_hold_and_no_longer() -> None:
    async def scenario() -> None:
        old = serving("old")
        lineup, leave = Lineup(old), [asyncio.Event(), asyncio.Event()]

        async def use(event: asyncio.Event) -> None:
            async with lineup.hold():
                await event.wait()

        users = [asyncio.create_task(use(event)) for event in leave]
        await asyncio.sleep(0)
        lineup.switch(serving("new"))
        idle = asyncio.create_task(lineup.idle(old))
        for event in leave:
            await asyncio.sleep(0.01)
            assert not idle.done()
            event.set()
        await idle
        await lineup.idle(old)  # at once, and again
        await asyncio.gather(*users)

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_hold_that_ends_badly_ends(how: str) -> None:
    async def scenario() -> None:
        lineup = Lineup(serving("old"))

        async def use() -> None:
            async with lineup.hold():
                if how == "failed":
                    raise ValueError(how)
                await asyncio.sleep(60)

        user = asyncio.create_task(use())
        await asyncio.sleep(0)
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        async with asyncio.timeout(5):
            await lineup.idle(lineup.current)

    asyncio.run(scenario())


def test_while_paused_new_holds_wait_and_then_take_what_serves() -> None:
    async def scenario() -> None:
        lineup, new = Lineup(serving("old")), serving("new")

        async def take() -> Serving:
            async with lineup.hold() as held:
                return held

        with lineup.paused():
            takers = [asyncio.create_task(take()) for _ in range(3)]
            await asyncio.sleep(0.01)
            assert not any(taker.done() for taker in takers)
            takers[0].cancel()
            lineup.switch(new)
        found = await asyncio.gather(*takers, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == [new, new]

    asyncio.run(scenario())


def test_a_pause_that_fails_lets_them_go_on() -> None:
    async def scenario() -> None:
        lineup = Lineup(serving("old"))
        with pytest.raises(ValueError, match="reload"), lineup.paused():
            raise ValueError("reload")
        async with asyncio.timeout(5), lineup.hold() as held:
            assert held is lineup.current

    asyncio.run(scenario())
