"""Following the store: who has what at once, checkpoints when they are loaded, nothing when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes import FakeCheckpoint, FakeEngine

from app.errors import CheckpointError, StoreError
from app.rewrite.answer import Query
from app.rewrite.lineup import Lineup, Lineups, Serving
from app.rollout.assignment import BUCKETS
from app.rollout.follower import Follower
from app.rollout.plan import Plan, read_plan
from app.rollout.state import Deployment, Order, Rollout, Switch, Transition, after
from app.rollout.traffic import NOTHING_DEPLOYED, Dealing, Traffic, dealing

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
A, B = "a" * 64, "b" * 64
PLAN = read_plan(
    'stages = ["finerank"]\n[[steps]]\nratio = 0.25\n[[steps]]\nratio = 1.0\n'
    '[[guardrails]]\nmetric = "strict"\nbetter = "higher"\nmargin = 0.02\n'
)
WIDER = PLAN.model_copy(update={"stages": ("recall", "rawrank", "finerank")})


def rollout(*orders: Order, number: int = 1, checkpoint: str = A, plan: Plan = PLAN) -> Rollout:
    history = [Transition(1, NOW, "ann", "start", "preparing", 0, "PASS")]
    for order in orders:
        so_far = Rollout.of(number, f"r{number}", checkpoint, plan, history)
        history.append(after(so_far, order, who="bo", why="x", at=NOW + timedelta(minutes=len(history))))
    return Rollout.of(number, f"r{number}", checkpoint, plan, history)


@dataclass
class FakeSource:
    """Says what it is told to say, or is lost."""

    says: Deployment = NOTHING_DEPLOYED
    lost: bool = False
    error: Exception = field(default_factory=lambda: StoreError("out of reach"))
    beats: list[str | None] = field(default_factory=list)

    def deployment(self) -> Deployment:
        if self.lost:
            raise self.error
        return self.says

    def beat(self, loaded: str | None) -> None:
        self.beats.append(loaded)


@dataclass
class Replica:
    """A follower and what it changes."""

    source: FakeSource
    traffic: Traffic
    lineups: Lineups
    engines: dict[str, list[FakeEngine]]
    follower: Follower

    async def sees(
        self, latest: Rollout | None, promoted: Rollout | None = None, *, killed: bool = False
    ) -> None:
        switch = Switch(1, NOW, "ann", killed, "x") if killed else None
        self.source.says = Deployment(latest, promoted, switch)
        await self.follower.look()
        await asyncio.sleep(0.01)

    @property
    def ratio(self) -> float:
        split = self.traffic.dealing.split
        return sum(split.arm_of(bucket).arm == "canary" for bucket in range(BUCKETS)) / BUCKETS

    def serves(self) -> tuple[str, str | None]:
        canary = self.lineups.canary
        return self.lineups.stable.current.checkpoint.id, canary.current.checkpoint.id if canary else None


def scenario(
    story: Callable[[Replica], Awaitable[None]],
    *,
    fails: list[str] | None = None,
    error: Exception | None = None,
    gate: asyncio.Event | None = None,
    kill_file: Path | None = None,
    catch_up_s: float = 60.0,
) -> None:
    """Run a story of a replica that begins with the checkpoint of its settings."""

    async def work() -> None:
        engines: dict[str, list[FakeEngine]] = {"settings": [FakeEngine()]}
        source = FakeSource()
        first = Serving(FakeCheckpoint(id="settings"), engines["settings"][0])  # type: ignore[arg-type]
        lineups = Lineups(Lineup(first))

        def dealt(deployment: Deployment) -> Dealing:
            return dealing(deployment, salt="s", holdout_ratio=0.0, stable_stages=())

        async def load(digest: str) -> Serving:
            if gate is not None:
                await gate.wait()
            if fails and digest in fails:
                fails.remove(digest)
                raise error or CheckpointError("its weights are torn")
            engine = FakeEngine()
            engines.setdefault(digest, []).append(engine)
            return Serving(FakeCheckpoint(id=digest[:1]), engine)  # type: ignore[arg-type]

        traffic = Traffic(dealt(NOTHING_DEPLOYED))
        follower = Follower(
            source,
            traffic=traffic,
            lineups=lineups,
            dealt=dealt,
            load=load,
            kill_file=kill_file,
            now=lambda: NOW,
            catch_up_s=catch_up_s,
            poll_s=0.01,
            again_s=0.0,
        )
        try:
            await story(Replica(source, traffic, lineups, engines, follower))
        finally:
            await follower.close()

    asyncio.run(work())


def test_a_rollout_from_its_start_to_everybody() -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout())
        assert (replica.serves(), replica.ratio) == (("settings", "a"), 0.0)
        assert replica.traffic.dealing.rollout == 0
        await replica.sees(rollout("begin"))
        assert replica.source.beats[-1] == A
        assert (replica.ratio, replica.traffic.dealing.rollout) == (0.25, 1)
        assert replica.traffic.dealing.stages == {"stable": (), "canary": ("finerank",)}
        done = rollout("begin", "promote")
        await replica.sees(done, done)
        assert (replica.serves(), replica.ratio) == (("a", None), 0.0)
        assert replica.traffic.dealing.stages["stable"] == ("finerank",)
        assert replica.engines["settings"][0].closed == 1
        assert [engine.closed for engine in replica.engines[A]] == [0]

    scenario(story)


def test_back_again_the_canary_leaves_memory() -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        await replica.sees(rollout("begin", "rollback"))
        assert (replica.serves(), replica.ratio) == (("settings", None), 0.0)
        assert [engine.closed for engine in replica.engines[A]] == [1]
        assert replica.engines["settings"][0].closed == 0
        assert replica.source.beats[-1] is None

    scenario(story)


def test_while_it_loads_the_share_stands_and_nothing_writes_for_the_canary() -> None:
    gate = asyncio.Event()

    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        assert (replica.serves(), replica.ratio) == (("settings", None), 0.25)
        gate.set()
        await asyncio.sleep(0.01)
        assert replica.serves() == ("settings", "a")

    scenario(story, gate=gate)


def test_one_that_was_promoted_elsewhere_is_not_dealt_before_it_is_loaded() -> None:
    """As in a replica that starts late: the old checkpoint must not get the new one's stages."""
    gate = asyncio.Event()

    async def story(replica: Replica) -> None:
        done = rollout("begin", "finish")
        await replica.sees(done, done)
        assert replica.serves() == ("settings", None)
        assert replica.traffic.dealing.stages["stable"] == ()
        gate.set()
        await asyncio.sleep(0.01)
        await replica.sees(done, done)
        assert replica.serves() == ("a", None)
        assert replica.traffic.dealing.stages["stable"] == ("finerank",)

    scenario(story, gate=gate)


def test_a_second_launch_of_the_same_checkpoint_shares_its_engine() -> None:
    async def story(replica: Replica) -> None:
        first = rollout("begin", "finish")
        await replica.sees(first, first)
        await replica.sees(first, first)
        second = rollout("begin", number=2, plan=WIDER)
        await replica.sees(second, first)
        assert replica.lineups.canary is replica.lineups.stable
        assert replica.traffic.dealing.stages["canary"] == ("recall", "rawrank", "finerank")
        back = rollout("begin", "rollback", number=2, plan=WIDER)
        await replica.sees(back, first)
        assert replica.serves() == ("a", None)
        third = rollout("begin", "finish", number=3, plan=WIDER)
        await replica.sees(third, third)
        assert replica.serves() == ("a", None)
        assert replica.traffic.dealing.stages["stable"] == ("recall", "rawrank", "finerank")
        assert [engine.closed for engine in replica.engines[A]] == [0]

    scenario(story)


def test_one_rollout_after_another() -> None:
    async def story(replica: Replica) -> None:
        first = rollout("begin", "finish")
        await replica.sees(first, first)
        await replica.sees(first, first)
        await replica.sees(rollout("begin", number=2, checkpoint=B), first)
        assert replica.serves() == ("a", "b")
        second = rollout("begin", "finish", number=2, checkpoint=B)
        await replica.sees(second, second)
        assert replica.serves() == ("b", None)
        assert [engine.closed for engine in replica.engines[A]] == [1]

    scenario(story)


@pytest.mark.parametrize(
    ("error", "why"),
    [(StoreError("out of reach"), "out of reach"), (MemoryError(), "MemoryError()")],
    ids=["store", "memory"],
)
def test_a_store_that_is_lost_changes_nothing_and_is_told(error: Exception, why: str) -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        replica.source.lost, replica.source.error = True, error
        await replica.sees(rollout("begin", "promote"))
        assert (replica.serves(), replica.ratio) == (("settings", "a"), 0.25)
        assert (replica.follower.sight.since, replica.follower.sight.why) == (NOW, why)
        replica.source.lost = False
        await replica.sees(rollout("begin", "rollback"))
        assert replica.follower.sight.why is None
        assert replica.ratio == 0.0

    scenario(story)


def test_a_checkpoint_that_does_not_load_is_tried_again() -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        assert replica.serves() == ("settings", None)
        await replica.sees(rollout("begin"))
        assert replica.serves() == ("settings", "a")

    scenario(story, fails=[A])


def test_the_kill_switch_is_for_everybody() -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"), killed=True)
        assert replica.traffic.killed
        assert replica.traffic.dealing.place("anybody").stages == ()
        await replica.sees(rollout("begin"))
        assert not replica.traffic.killed

    scenario(story)


@pytest.mark.parametrize("by", ["the store", "a file"])
def test_who_gets_the_original_for_the_kill_switch_says_nothing_of_the_canary(by: str) -> None:
    """What is counted of them is of before the next rollout: they would thin out any harm."""

    def cells(replica: Replica) -> set[tuple[int, int]]:
        asked = [Query(text="x", query_id=f"q{number}") for number in range(50)]
        places = [replica.traffic.place(one) for one in asked]
        return {(place.cell.rollout, place.cell.step) for place in places if place.cell}

    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        assert cells(replica) == {(1, 0)}
        await replica.sees(rollout("begin"), killed=by == "the store")
        replica.traffic.stopped = {"x"} if by == "a file" else set()
        assert cells(replica) == {(0, 1)}
        assert all(not replica.traffic.place(Query(text="x", query_id=name)).stages for name in "abc")
        tester = replica.traffic.place(Query(text="x", query_id="a", arm="canary"))
        assert (tester.arm, tester.stages, tester.cell) == ("canary", (), None)
        replica.traffic.stopped = set()
        await replica.sees(rollout("begin"))
        assert cells(replica) == {(1, 0)}
        await replica.sees(rollout("begin", "rollback"), killed=True)
        assert cells(replica) == {(0, 1)}  # as without the switch

    scenario(story)


@pytest.mark.parametrize("lost", [False, True])
def test_the_kill_file_works_whatever_the_store_does(tmp_path: Path, lost: bool) -> None:  # noqa: FBT001
    file = tmp_path / "kill"

    async def story(replica: Replica) -> None:
        replica.source.lost = lost
        running = asyncio.gather(replica.follower.follow(), replica.follower.watch())
        await asyncio.sleep(0.1)
        assert not replica.traffic.killed
        file.touch()
        await asyncio.sleep(0.3)
        assert replica.traffic.killed
        file.unlink()
        await asyncio.sleep(0.3)
        assert not replica.traffic.killed
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    scenario(story, kill_file=file)


@pytest.mark.parametrize("loads", ["slowly", "at once"])
def test_one_that_starts_in_the_middle_waits_until_it_has_loaded_what_is_deployed(loads: str) -> None:
    """What is stable, and the canary of another rollout."""
    gate = asyncio.Event()
    if loads == "at once":
        gate.set()

    async def story(replica: Replica) -> None:
        replica.source.says = Deployment(
            rollout("begin", number=2, checkpoint=B), rollout("begin", "finish"), None
        )
        catching_up = asyncio.create_task(replica.follower.catch_up())
        await asyncio.sleep(0.02)
        assert gate.is_set() or not catching_up.done()
        gate.set()
        await asyncio.wait_for(catching_up, 10.0)
        assert replica.serves() == ("a", "b")
        assert replica.ratio == 0.25

    scenario(story, gate=gate)


def test_what_nobody_expected_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def story(replica: Replica) -> None:
        await replica.sees(rollout("begin"))
        assert replica.serves() == ("settings", None)
        await replica.sees(rollout("begin"))
        assert replica.serves() == ("settings", "a")

    scenario(story, fails=[A], error=MemoryError())
    (told,) = [record for record in caplog.records if record.message == "rollouts: not loaded"]
    assert told.fields["detail"] == f"{A[:12]}: MemoryError()"  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", [True, False])
def test_it_does_not_wait_for_what_cannot_be_loaded(lost: bool) -> None:  # noqa: FBT001
    async def story(replica: Replica) -> None:
        replica.source.says = Deployment(rollout("begin"), None, None)
        replica.source.lost = lost
        await asyncio.wait_for(replica.follower.catch_up(), 10.0)
        assert replica.serves() == ("settings", None)

    scenario(story, fails=[A])


def test_it_does_not_wait_for_good_for_what_hangs() -> None:
    async def story(replica: Replica) -> None:
        replica.source.says = Deployment(rollout("begin"), None, None)
        await asyncio.wait_for(replica.follower.catch_up(), 10.0)
        assert replica.serves() == ("settings", None)
        gate.set()
        _, loading = replica.follower._loading or (None, None)
        assert loading is not None
        await loading
        assert replica.serves() == ("settings", "a")

    gate = asyncio.Event()
    scenario(story, gate=gate, catch_up_s=0.05)
