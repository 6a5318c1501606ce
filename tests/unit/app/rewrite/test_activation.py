"""Activation over fake engines that load honestly, lie, hang, or die; the proof has to tell which."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import FakeCheckpoint

from app.contracts.manifest import GoldenPrompt
from app.engines.base import Completion, Generation, GenerationRequest
from app.engines.breaker import Breaker
from app.engines.proof import prove
from app.engines.supervised import SupervisedEngine
from app.errors import (
    ActivationError,
    CheckpointError,
    EngineDeadError,
    EngineUnavailableError,
    UnknownCheckpointError,
)
from app.rewrite.activation import Activation, Activator
from app.rewrite.lineup import Lineup, Serving


def tokens_of(model: str, prompt: str) -> tuple[int, ...]:
    return tuple(hashlib.sha256(f"{model}{prompt}".encode()).digest()[:3])


def checkpoint(name: str, *, model: str | None = None, golden: int = 3) -> FakeCheckpoint:
    """One whose model is called `model`, or as itself."""
    prompts = [f"prompt {number}" for number in range(golden)]
    return FakeCheckpoint(
        id=name,
        weights_digest=f"weights of {name}",
        path=Path(name),
        model_digest=model or name,
        golden=tuple(
            GoldenPrompt(prompt=prompt, token_ids=tokens_of(model or name, prompt)) for prompt in prompts
        ),
    )


@dataclass
class Model:
    """An engine that computes the model its folder is named after, or does what `fault` says."""

    path: Path
    weights_digest: str
    log: list[str]
    fault: str = ""
    started: bool = False
    running: int = 0

    async def start(self) -> None:
        self.log.append(f"start {self.path}")
        if self.fault == "no start":
            raise EngineUnavailableError("no memory")
        if self.fault == "hangs":
            await asyncio.sleep(60)
        self.model = "another" if self.fault == "wrong weights" else str(self.path)
        self.started = True

    async def close(self) -> None:
        assert self.running == 0, "closed under a request"
        self.log.append(f"close {self.path}")
        self.started = False

    async def generate(self, request: GenerationRequest) -> Generation:
        if self.fault == "dead":
            raise EngineDeadError("killed")
        assert self.started
        self.running += 1
        await asyncio.sleep(0.001)
        self.running -= 1
        ids = tokens_of(self.model, request.prompt)
        digest = "other" if self.fault == "wrong name" else self.weights_digest
        return Generation((Completion("text", ids, -0.5, "stop"),), digest, prompt_tokens=3)


@dataclass
class InPlace(Model):
    """One that can reload. Faults: keeps the old weights; fails; dies; ruins itself."""

    async def reload(self, checkpoint_dir: Path, *, weights_digest: str) -> None:
        assert self.running == 0, "reloaded under a request"
        self.log.append(f"reload {checkpoint_dir}")
        if self.fault == "cannot":
            raise EngineUnavailableError("other sizes")
        if self.fault == "dies":
            self.fault = "dead"
            raise EngineDeadError("killed")
        if self.fault == "hangs":
            await asyncio.sleep(60)
        self.weights_digest = weights_digest
        if self.fault == "ruined":
            self.model = "ruins"
        elif self.fault != "keeps":
            self.model = str(checkpoint_dir)


@dataclass
class House:
    """A lineup of fakes, with `old` serving, and an activator over it; `faults` is by checkpoint id."""

    kind: type[Model] = Model
    faults: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 5.0
    old: FakeCheckpoint = field(default_factory=lambda: checkpoint("old"))
    known: dict[str, FakeCheckpoint] = field(default_factory=lambda: {"new": checkpoint("new")})
    log: list[str] = field(default_factory=list)
    outcomes: list[tuple[str, str]] = field(default_factory=list)

    async def open(self) -> Activator:
        self.lineup = Lineup(Serving(self.old, self.supervised(self.old)))
        await self.lineup.current.engine.start()
        return Activator(
            self.lineup,
            load=self.load,
            engine_for=self.supervised,
            on_outcome=lambda mechanism, outcome: self.outcomes.append((mechanism, outcome)),
            timeout_s=self.timeout_s,
        )

    def load(self, name: str) -> FakeCheckpoint:
        if name not in self.known:
            raise UnknownCheckpointError(f"no checkpoint {name!r}")
        if self.faults.get(name) == "altered":
            raise CheckpointError("model.safetensors: its SHA-256 is not the manifest's")
        return self.known[name]

    def supervised(self, found: FakeCheckpoint) -> SupervisedEngine:
        def make(of: FakeCheckpoint) -> Model:
            fault = self.faults.get(of.id, "")
            return self.kind(of.path, of.weights_digest, self.log, fault)

        async def proven(engine: Model, of: FakeCheckpoint) -> None:
            await prove(engine, of.golden, weights_digest=of.weights_digest)

        return SupervisedEngine(
            found,
            make,
            breaker=Breaker(max_failures=3, open_s=60.0),
            prove=proven,
            timeout_s=5.0,
            backoff_s=0.001,
            reload_timeout_s=0.05,
        )

    async def answers(self) -> tuple[str, str]:
        """The checkpoint that is said to serve, and the model that answers."""
        async with self.lineup.hold() as serving:
            generation = await serving.engine.generate(GenerationRequest(prompt="any"))
            models = ("old", "new", "ruins", "another", "same")
            [model] = [m for m in models if tokens_of(m, "any") == generation.completions[0].token_ids]
            assert generation.weights_digest == serving.checkpoint.weights_digest
            return serving.checkpoint.id, model


def activate(
    house: House, mechanism: str, name: str = "new"
) -> tuple[Activation | Exception, tuple[str, str]]:
    """What `activate` says, and who answers afterwards."""

    async def scenario() -> tuple[Activation | Exception, tuple[str, str]]:
        activator = await house.open()
        try:
            said: Activation | Exception = await activator.activate(name, mechanism)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the tests ask which
            said = error
        for _ in range(100):  # a restart that was begun may need its moment
            try:
                return said, await house.answers()
            except EngineUnavailableError:
                await asyncio.sleep(0.01)
        raise AssertionError("nothing answers any more")

    return asyncio.run(scenario())


def test_beside_switches_and_closes_the_one_before() -> None:
    house = House()
    said, answers = activate(house, "beside")
    assert isinstance(said, Activation)
    assert (said.outcome, said.mechanism, said.golden, said.told_apart) == ("activated", "beside", 3, True)
    assert said.weights_digest == "weights of new"
    assert answers == ("new", "new")
    assert house.log == ["start old", "start new", "close old"]
    assert house.outcomes == [("beside", "activated")]


def test_in_place_keeps_the_engine() -> None:
    house = House(kind=InPlace)
    said, answers = activate(house, "in_place")
    assert isinstance(said, Activation)
    assert (said.mechanism, said.fell_back) == ("in_place", None)
    assert answers == ("new", "new")
    assert house.log == ["start old", "reload new"]


@pytest.mark.parametrize("fault", ["no start", "hangs", "wrong weights", "wrong name", "altered", "dead"])
def test_what_cannot_be_proven_is_refused_and_the_incumbent_serves_on(fault: str) -> None:
    house = House(faults={"new": fault}, timeout_s=0.05 if fault == "hangs" else 5.0)
    said, answers = activate(house, "beside")
    assert isinstance(said, ActivationError)
    assert str(said).startswith("old serves on: ")
    assert len(str(said)) > len("old serves on: ")
    assert answers == ("old", "old")
    assert house.log.count("start new") == house.log.count("close new")
    assert "close old" not in house.log
    assert house.outcomes == [("beside", "refused")]


@pytest.mark.parametrize(
    ("fault", "old_engine"),
    [
        ("keeps", ["reload new", "reload old"]),  # as vLLM was seen to do with a tied head
        ("cannot", ["reload new", "reload old", "close old", "start old"]),  # nor can it go back
        ("dies", ["reload new", "reload old", "close old", "start old"]),
        ("ruined", ["reload new", "reload old", "close old", "start old"]),
        ("hangs", ["reload new", "reload old", "close old", "start old"]),
    ],
)
def test_a_failed_reload_puts_the_old_weights_back_and_falls_back_to_beside(
    fault: str, old_engine: list[str]
) -> None:
    house = House(kind=InPlace)

    async def scenario() -> tuple[Activation, tuple[str, str]]:
        activator = await house.open()
        house.lineup.current.engine.inner.fault = fault
        said = await activator.activate("new", "in_place")
        return said, await house.answers()

    said, answers = asyncio.run(scenario())
    assert said.mechanism == "beside"
    assert said.fell_back
    assert answers == ("new", "new")
    assert house.log[1 : 1 + len(old_engine[:2])] == old_engine[:2]
    assert house.log[-1] == "close old"
    assert house.outcomes == [("in_place", "refused"), ("beside", "activated")]


def test_in_place_on_an_engine_that_cannot_falls_back() -> None:
    house = House(kind=Model)
    said, answers = activate(house, "in_place")
    assert isinstance(said, Activation)
    assert said.mechanism == "beside"
    assert "in place" in (said.fell_back or "")
    assert answers == ("new", "new")


def test_when_both_ways_fail_the_incumbent_answers_again() -> None:
    house = House(kind=InPlace, faults={"new": "wrong weights"})

    async def scenario() -> tuple[str, str]:
        activator = await house.open()
        house.lineup.current.engine.inner.fault = "ruined"
        with pytest.raises(ActivationError, match="old serves on"):
            await activator.activate("new", "in_place")
        for _ in range(100):
            try:
                return await house.answers()
            except EngineUnavailableError:
                await asyncio.sleep(0.01)
        raise AssertionError("nothing answers any more")

    assert asyncio.run(scenario()) == ("old", "old")


def test_golden_prompts_that_tell_nothing_prove_nothing() -> None:
    blind = checkpoint("new")
    blind.golden = checkpoint("old").golden
    house = House(known={"new": blind})
    said, answers = activate(house, "beside")
    assert isinstance(said, ActivationError)
    assert "tells new from old" in str(said)
    assert answers == ("old", "old")
    none = checkpoint("new", golden=0)
    assert isinstance(activate(House(known={"new": none}), "beside")[0], ActivationError)


def test_the_same_model_under_another_calibration_needs_no_difference() -> None:
    house = House(
        old=checkpoint("old", model="old"), known={"new": checkpoint("new", model="old")}, kind=InPlace
    )
    house.known["new"].path = Path("old")
    said, (serving, model) = activate(house, "in_place")
    assert isinstance(said, Activation)
    assert (said.mechanism, said.told_apart) == ("in_place", False)
    assert (serving, model) == ("new", "old")


@pytest.mark.parametrize("mechanism", ["beside", "in_place"])
def test_an_incumbent_that_is_dead_can_be_replaced(mechanism: str) -> None:
    house = House(kind=InPlace)

    async def scenario() -> Activation:
        activator = await house.open()
        house.lineup.current.engine.inner.fault = "dead"
        house.faults["old"] = "no start"
        said = await activator.activate("new", mechanism)  # type: ignore[arg-type]
        assert await house.answers() == ("new", "new")
        return said

    said = asyncio.run(scenario())
    assert (said.mechanism, said.told_apart) == ("beside", None)


def test_what_serves_already_is_left_alone() -> None:
    house = House(known={"old": checkpoint("old")})
    said, _ = activate(house, "beside", "old")
    assert isinstance(said, Activation)
    assert said.outcome == "already_active"
    assert house.log == ["start old"]


def test_an_unknown_id_is_said_to_be_unknown() -> None:
    said, answers = activate(House(), "beside", "nowhere")
    assert isinstance(said, UnknownCheckpointError)
    assert answers == ("old", "old")


def test_one_at_a_time_and_a_caller_who_leaves_does_not_stop_it() -> None:
    async def scenario() -> None:
        house = House()
        activator = await house.open()
        caller = asyncio.create_task(activator.activate("new", "beside"))
        await asyncio.sleep(0)
        with pytest.raises(ActivationError, match="under way"):
            await activator.activate("new", "beside")
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        for _ in range(200):
            await asyncio.sleep(0.01)
            if house.lineup.current.checkpoint.id == "new":
                break
        assert await house.answers() == ("new", "new")
        await activator.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("mechanism", "kind"), [("beside", Model), ("in_place", InPlace)])
def test_requests_all_through_a_swap_are_answered_by_one_or_the_other(
    mechanism: str, kind: type[Model]
) -> None:
    """`answers` fails where digest and tokens disagree; the fakes fail when pulled from under one."""

    async def scenario() -> list[tuple[str, str]]:
        house, found = House(kind=kind), []
        activator = await house.open()
        over = False

        async def client() -> None:
            while not over:
                found.append(await house.answers())

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await asyncio.sleep(0.01)
        await activator.activate("new", mechanism)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        over = True
        await asyncio.gather(*clients)
        return found

    found = asyncio.run(scenario())
    assert set(found) == {("old", "old"), ("new", "new")}


def test_closing_gives_up_what_is_under_way() -> None:
    async def scenario() -> list[str]:
        house = House(faults={"new": "hangs"})
        activator = await house.open()
        task = asyncio.create_task(activator.activate("new", "beside"))
        await asyncio.sleep(0.01)
        await activator.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        return house.log

    assert asyncio.run(scenario()) == ["start old", "start new", "close new"]
