"""A replica with a store, from the start of a rollout over HTTP to what was counted of it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main
from app.main import create_app
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from app.registry.place import Place
from app.registry.store import Registry
from app.rollout.counts import CountStore
from app.rollout.database import Database
from app.rollout.evidence import MEASURES
from app.settings import Settings
from loadtest.sibling import make_sibling

TOKEN = {"authorization": "Bearer secret"}
CLIENTS = 60
PLAN = """
stages = ["finerank"]
prepare_s = 0.0
[[steps]]
ratio = 0.5
min_s = 1000.0
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "strict"
better = "higher"
margin = 0.02
"""
BECAUSE = {"who": "ann", "why": "because"}


@dataclass
class Replica:
    """A client of one replica."""

    client: httpx.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, body: dict[str, Any], *, token: bool = True) -> httpx.Response:
        return await self.client.post(path, json=body, headers=TOKEN if token else {})

    async def status(self) -> dict[str, Any]:
        return (await self.client.get("/v1/admin/rollout", headers=TOKEN)).json()  # type: ignore[no-any-return]

    async def start(self) -> None:
        asked = {"checkpoint": "candidate", "plan": PLAN, "name": "autumn", "ungated": True, **BECAUSE}
        answer = await self.post("/v1/admin/rollout/start", asked)
        assert answer.status_code == 200, answer.text
        await until(lambda: self._state("running"))
        await until(lambda: self.sees("corewrite_canary_ratio 0.5", "corewrite_canary_loaded 1.0"))

    async def sees(self, *samples: str) -> bool:
        told = (await self.get("/metrics")).text
        return all(sample in told for sample in samples)

    async def _state(self, state: str) -> bool:
        return bool((await self.status())["rollout"]["last"]["state"] == state)

    async def search(self, number: int) -> dict[str, Any]:
        asked = {"query": "rn icu nights", "query_id": f"q{number}", "client_id": f"c{number}"}
        return (await self.post("/v1/rewrite", asked)).json()  # type: ignore[no-any-return]


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 -- it is in another process, or in a database
            await asyncio.sleep(0.05)


@asynccontextmanager
async def served(url: str, folder: Path, **options: Any) -> AsyncIterator[Replica]:
    """A replica whose stable serves nothing yet, and a registry with a candidate."""
    (folder / "pulled").mkdir(exist_ok=True)
    defaults: dict[str, Any] = {
        "rollouts": url,
        "registry": str(folder / "registry"),
        "checkpoints": folder / "pulled",
        "admin_token": "secret",
        "rollout_poll_s": 0.1,
        "rollout_flush_s": 0.1,
        "rollout_decide_s": 0.1,
        "stable_stages": (),
        "deadline_ms": 20_000,
        "relevance": "none",
    }
    app = create_app(Settings(**{**defaults, **options}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
            yield Replica(client)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    registry = Registry(Place.at(str(tmp_path / "registry")))
    digest = registry.push(DEFAULT_CHECKPOINT)
    registry.aliases.point("candidate", digest, who="ann", why="x", when=datetime.now(UTC))
    return tmp_path


def test_a_first_launch_is_counted_and_goes_back(url: str, folder: Path) -> None:
    async def story() -> None:
        async with served(url, folder) as replica:
            before = await replica.search(0)
            assert (before["arm"], before["reason"], before["stages"]) == ("stable", "disabled", [])
            await replica.start()
            answers = [await replica.search(number) for number in range(1, CLIENTS + 1)]
            arms = Counter(answer["arm"] for answer in answers)
            assert set(arms) == {"stable", "canary"}
            for answer in answers:
                shown = answer["arm"] == "canary"
                assert bool(answer["rewrites"]) == shown
                assert answer["stages"] == (["finerank"] if shown else [])
            events = [
                {
                    "event_id": f"e{number}",
                    "query_id": answer["query_id"],
                    "action_name": "click",
                    "exposure": answer["exposure"],
                }
                for number, answer in enumerate(answers)
            ]
            taken = await replica.post("/v1/events", {"events": [*events, *events[:5]]}, token=False)
            assert taken.json() == {"accepted": CLIENTS + 5, "ignored": 0, "unknown": 0, "invalid": []}
            status = await replica.status()
            assert status["rollout"]["arms"]["canary"]["searches"] == arms["canary"]
            assert status["rollout"]["arms"]["stable"]["searches"] == arms["stable"]
            assert status["rollout"]["verdict"]["action"] == "insufficient"
            again = await replica.post("/v1/admin/rollout/rollback", BECAUSE)
            assert again.json()["rollout"]["last"]["state"] == "rolled_back"
            await until(lambda: replica.sees("corewrite_canary_ratio 0.0"))
            assert {(await replica.search(number))["arm"] for number in range(200, 210)} == {"stable"}

    asyncio.run(story())
    database = Database(url)
    sums = CountStore(database).sums(1)[0]["all"]
    database.close()
    assert sums[:, MEASURES.index("searches")].sum() == CLIENTS
    assert sums[:, MEASURES.index("clicks")].sum() == CLIENTS


def test_promoted_by_hand_it_is_stable_also_for_replicas_that_start_later(url: str, folder: Path) -> None:
    async def story() -> None:
        async with served(url, folder) as replica:
            await replica.start()
            await replica.post("/v1/admin/rollout/promote", BECAUSE)

            async def all_served() -> bool:
                answers = [await replica.search(number) for number in range(5)]
                seen = {(answer["arm"], answer["reason"], *answer["stages"]) for answer in answers}
                return seen == {("stable", None, "finerank")}

            await until(all_served)
        async with served(url, folder) as later:

            async def rewrites() -> bool:
                return bool((await later.search(7))["rewrites"])

            async def pointed() -> bool:  # by whoever may decide: the first one, or this one in its place
                return aliases.current("stable") is not None

            await until(rewrites)
            await until(pointed)

    aliases = Registry(Place.at(str(folder / "registry"))).aliases
    asyncio.run(story())
    moved = aliases.current("stable")
    assert moved is not None
    assert moved.to_digest == aliases.all()["candidate"]
    assert (moved.who, moved.why) == ("ann", "autumn: because")


def test_killed_everybody_gets_the_original(url: str, folder: Path) -> None:
    """In the replica that was asked at once, in the other one as soon as it looks."""

    async def story() -> None:
        async with served(url, folder) as one, served(url, folder) as other:
            await one.start()
            await one.post("/v1/admin/rollout/promote", BECAUSE)
            await until(lambda: rewrites(other))
            answer = (await one.post("/v1/admin/kill", BECAUSE)).json()
            assert (answer["killed"], answer["stable"]["stages"]) == (True, ["finerank"])
            assert not await rewrites(one)
            await until(lambda: originals(other))
            status = await other.status()
            assert (status["killed"], status["switch"]["who"]) == (True, "ann")
            await until(lambda: one.sees("corewrite_killed 1.0"))
            await asyncio.sleep(0.3)  # looks at the store are .1 s apart
            await other.post("/v1/admin/kill", {**BECAUSE, "on": False})
            await until(lambda: rewrites(other))
            await until(lambda: rewrites(one))

    async def originals(replica: Replica) -> bool:
        return not await rewrites(replica)

    async def rewrites(replica: Replica) -> bool:
        return bool((await replica.search(7))["rewrites"])

    asyncio.run(story())


def test_a_tester_sees_any_arm_and_counts_nowhere(url: str, folder: Path) -> None:
    async def story() -> None:
        async with served(url, folder) as replica:
            await replica.start()
            asked = {"query": "rn icu nights", "query_id": "q1", "client_id": "c1"}
            for path in ("/v1/rewrite", "/v1/signals"):
                for arm, shown in (("canary", True), ("stable", False), ("holdout", False)):
                    headers = {**TOKEN, "x-corewrite-arm": arm}
                    answer = (await replica.client.post(path, json=asked, headers=headers)).json()
                    assert (answer["arm"], bool(answer["rewrites"])) == (arm, shown)
                    assert answer["exposure"] is None
                refused = await replica.client.post(path, json=asked, headers={"x-corewrite-arm": "canary"})
                assert refused.status_code == 401
                wrong = await replica.client.post(
                    path, json=asked, headers={**TOKEN, "x-corewrite-arm": "gold"}
                )
                assert wrong.status_code == 422
            await asyncio.sleep(0.3)
            arms = (await replica.status())["rollout"]["arms"]
            assert sum(arm["searches"] for arm in arms.values()) == 0

    asyncio.run(story())


def test_the_handbook_goes_back_to_last_good_and_nobody_sees_the_wrong_one_meanwhile(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the handbook's own commands, but that the plan does not wait for 30 s."""
    plan = folder / "launch.toml"
    plan.write_text(PLAN, encoding="utf-8")
    monkeypatch.setattr("app.commands.rollout.LAUNCH", plan)
    monkeypatch.setenv("REWRITE_ROLLOUTS", url)
    monkeypatch.setenv("REWRITE_REGISTRY", str(folder / "registry"))
    handbook = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = [
        one for one in re.findall(r"```sh\n(.*?)```", handbook, re.DOTALL) if "start last_good" in one
    ]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    registry, now = Registry(Place.at(str(folder / "registry"))), datetime.now(UTC)
    good, wrong = load_checkpoint(DEFAULT_CHECKPOINT), folder / "wrong"
    registry.aliases.point("last_good", registry.resolve("candidate"), who="ann", why="x", when=now)
    digest = registry.push(make_sibling(good, wrong).path)
    registry.aliases.point("candidate", digest, who="ann", why="x", when=now)

    async def story() -> None:
        async with served(url, folder) as replica:
            await replica.start()
            await replica.post("/v1/admin/rollout/promote", BECAUSE)
            await until(lambda: serves(replica, "wrong"))
            seen = []
            for words in commands:
                assert words.pop(0) == "corewrite"
                if words[:2] == ["rollout", "status"]:
                    await until(lambda: replica._state("running"))
                assert await asyncio.to_thread(main, words) == 0
                seen.append(bool((await replica.search(7))["rewrites"]))
                await until(lambda: replica.sees("corewrite_killed 1.0")) if len(seen) == 1 else None
            assert not any(seen[1:-1])  # killed until the end
            await until(lambda: serves(replica, good.id))
            await until(pointed)
            moved = registry.aliases.all()
            assert moved["last_good"] == moved["stable"]  # and not at what was wrong

    async def pointed() -> bool:
        return registry.aliases.all().get("stable") == registry.resolve("last_good")

    async def serves(replica: Replica, checkpoint_id: str) -> bool:
        info = f'corewrite_checkpoint_info{{digest="{weights[checkpoint_id]}",id="{checkpoint_id}"}} 1.0'
        return bool((await replica.search(7))["rewrites"]) and await replica.sees(
            info, "corewrite_killed 0.0"
        )

    weights = {one.id: one.weights_digest for one in (good, load_checkpoint(wrong))}
    asyncio.run(story())


@pytest.mark.parametrize("path", ["/v1/admin/rollout", "/v1/admin/rollout/history"])
def test_without_the_token_nothing_is_told(url: str, folder: Path, path: str) -> None:
    async def story() -> None:
        async with served(url, folder) as replica:
            assert (await replica.get(path)).status_code == 401
            assert (await replica.get(path, authorization="Bearer wrong")).status_code == 401
            assert (await replica.get(path, **TOKEN)).status_code == 200
            refused = await replica.post("/v1/admin/kill", BECAUSE, token=False)
            assert refused.status_code == 401
            assert not (await replica.status())["killed"]

    asyncio.run(story())


def test_where_no_token_is_set_the_routes_do_not_exist(url: str, folder: Path) -> None:
    async def story() -> None:
        async with served(url, folder, admin_token=None) as replica:
            assert (await replica.get("/v1/admin/rollout", **TOKEN)).status_code == 404
            assert (await replica.post("/v1/admin/kill", BECAUSE)).status_code == 404

    asyncio.run(story())


def test_what_cannot_be_done_is_said_to_be_so(url: str, folder: Path) -> None:
    async def story() -> None:
        async with served(url, folder) as replica:
            none = await replica.post("/v1/admin/rollout/pause", BECAUSE)
            assert (none.status_code, none.json()["detail"]) == (409, "there is no live rollout to pause")
            asked = {"checkpoint": "candidate", "plan": PLAN, **BECAUSE}
            ungated = await replica.post("/v1/admin/rollout/start", asked)
            assert ungated.status_code == 409
            assert "no verdict of the gate" in ungated.json()["detail"]
            bad = await replica.post("/v1/admin/rollout/start", {**asked, "plan": "steps = 3"})
            assert (bad.status_code, bad.json()["error"]) == (422, "invalid_plan")
            unknown = await replica.post("/v1/admin/rollout/start", {**asked, "checkpoint": "nothing"})
            assert unknown.status_code == 404

    asyncio.run(story())
