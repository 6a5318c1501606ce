"""The proof end to end: real replicas, a real store, searches over HTTP, people by human labels. `make ab`.

before      searches of those who have no rewrites yet: what CUPED reads
launch 1    the checkpoint in the package, at finerank alone, against no rewrites at all
launch 2    the same checkpoint at recall and rawrank too
incident    a checkpoint that cheats its reward, and has passed a gate that believes the reward
again       the same one under faults: a replica killed, the store restarted, a clock set a day ahead and a
            day back, every report sent twice
no change   what serves already, under another name and the same faults: there is nothing to promote
crash       the same once more, whose engine soon dies whenever it is asked
bounds      how soon the kill switch works everywhere, and what is lost with a replica that is killed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from app.registry.place import Place
from app.registry.store import Registry
from training.canary.ab_page import draw, page
from training.canary.bounds import bounds
from training.canary.checkpoints import harmful_checkpoint, twin
from training.canary.pages import Pages
from training.canary.people import People, job_searches
from training.canary.processes import until
from training.canary.replay import Replay, Tally
from training.canary.service import Service, running_service
from training.config import Section, read_config
from training.drill.plan import DrillConfig
from training.loop import write_whole
from training.needs import Need
from training.search import Stack
from training.searches import read_documents
from training.served import served_relevance
from training.users import User

ROUND = 2_000
"""Searches between two looks at what the service says."""
DAY_S = 86_400
FLUSH_S = 1.0


class AbConfig(Section):
    """A proof."""

    drill: Path = Field(description="configuration of the drill that the harmful checkpoint is of")
    hack: str = Field(description="which of its hacks")
    gate: dict[str, Any] = Field(description="merged into the gate's policy, so that the hack passes")
    clients: int = Field(gt=0)
    holdout_ratio: float = Field(ge=0, le=0.5)
    before: int = Field(description="searches before the first launch")
    most: int = Field(description="searches in which a rollout has to come to an end")
    most_unchanged: int = Field(description="searches after which one that changes nothing is called off")
    plan: str = Field(description="of all rollouts, as TOML, without its stages")
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in the middle of a round."""

    round: int
    what: str
    act: Callable[[], object]


class Proof:
    """People, pages and replicas, and what is told of them.

    Args:
        config: of all of it.
        service: the replicas.
        people: who search.
        pages: what they see.
    """

    def __init__(self, config: AbConfig, service: Service, people: People, pages: Pages) -> None:
        self._config, self._service, self._people, self._pages = config, service, people, pages

    async def before(self) -> dict[str, Any]:
        """Have people search before there is any rollout."""
        replay = self._replay()
        await replay.run(self._config.before)
        return {"name": "before", "searches": self._config.before, "tally": _tally(replay.tally)}

    async def rollout(
        self,
        name: str,
        checkpoint: str,
        stages: Sequence[str],
        *,
        most: int | None = None,
        ungated: bool = False,
        faults: Sequence[Fault] = (),
    ) -> dict[str, Any]:
        """Start a rollout, and have people search until it is over; return what was seen of it.

        Args:
            name: of the rollout.
            checkpoint: its digest.
            stages: that may use it.
            most: searches after which it is not waited for any longer.
            ungated: no gate was asked.
            faults: that happen meanwhile; with any, all reports are sent twice.
        """
        most = most or self._config.most
        plan = f"stages = {json.dumps(list(stages))}\n{self._config.plan}"
        self._service.order("start", checkpoint=checkpoint, plan=plan, name=name, ungated=ungated)
        replay, looks, happened = self._replay(twice=bool(faults)), [], []
        began, number, over = time.monotonic(), 0, False
        while number * ROUND < most and not over:
            now = [fault for fault in faults if fault.round == number]
            happened += [fault.what for fault in now]
            await asyncio.gather(replay.run(ROUND), *(_in_a_moment(fault.act) for fault in now))
            number += 1
            status = await asyncio.to_thread(self._service.status)
            looks.append(_look(number * ROUND, status))
            over = status["rollout"]["last"]["state"] in {"promoted", "rolled_back"}
        if not over:
            self._service.order("rollback")
        return {
            "name": name,
            "checkpoint": checkpoint,
            "stages": list(stages),
            "searches": number * ROUND,
            "seconds": time.monotonic() - began,
            "faults": happened,
            "tally": _tally(replay.tally),
            "looks": looks,
            "status": status["rollout"],
        }

    async def bounds(self) -> dict[str, Any]:
        """Measure what is promised in seconds."""
        return await bounds(self._service, self._replay, flush_s=FLUSH_S)

    def _replay(self, *, twice: bool = False) -> Replay:
        return Replay(self._service.urls, self._people, self._pages, twice=twice)


def faults_of(service: Service) -> list[Fault]:
    """All that goes wrong, one after the other."""
    first, second = service.replicas

    def restart_replica() -> None:
        second.kill()
        time.sleep(1.0)
        second.start()

    return [
        Fault(2, "a replica was killed and started again", restart_replica),
        Fault(6, "the store was killed and started again", lambda: service.store.restart(3.0)),
        Fault(9, "a replica's clock was set a day ahead", lambda: first.move_clock(DAY_S)),
        Fault(12, "and a day back", lambda: first.move_clock(-DAY_S)),
        Fault(15, "and right again", lambda: first.move_clock(0)),
    ]


def crash_of(service: Service, checkpoint: str) -> Fault:
    """As soon as it serves, the engine with a checkpoint dies whenever it is asked."""

    def crash() -> None:
        until(lambda: bool(service.status()["rollout"]["last"]["state"] == "running"))
        for replica in service.replicas:
            replica.crashing.write_text(checkpoint, encoding="ascii")

    return Fault(0, "the canary's engine died whenever it was asked", crash)


async def prove(config: AbConfig, folder: Path, needs: Sequence[Need], harmful: str) -> list[Any]:
    """Go through the whole story; return a record of each part.

    Args:
        config: of all of it.
        folder: of its files; `folder / "registry"` has the checkpoints.
        needs: what people search for.
        harmful: digest of the checkpoint of the incident.
    """
    drill = read_config(config.drill, DrillConfig)
    registry = Registry(Place.at(str(folder / "registry")))
    stable = registry.resolve("stable")
    relevance = served_relevance(drill.loop.relevance, threads=1)
    stack = await Stack.over(read_documents(drill.loop.logs[0].corpus), relevance)
    pages = Pages(stack, folder / "pages.jsonl")
    people = People(needs, clients=config.clients, user=User(), seed=config.seed)
    all_stages = ("recall", "rawrank", "finerank")
    options = {
        "stable_stages": "[]",
        "holdout_ratio": config.holdout_ratio,
        "rollout_decide_s": 5.0,
        "rollout_flush_s": FLUSH_S,
    }
    records: list[Any] = []

    def keep(record: Mapping[str, Any]) -> None:
        records.append(record)
        write_whole(folder / "ab.json", json.dumps(records, indent=1) + "\n")

    with running_service(folder / "service", folder / "registry", replicas=2, **options) as service:
        proof = Proof(config, service, people, pages)
        keep(await proof.before())
        keep(await proof.rollout("launch-1", stable, ("finerank",), ungated=True))
        keep(await proof.rollout("launch-2", stable, all_stages, ungated=True))
        keep(await proof.rollout("incident", harmful, all_stages))
        keep(await proof.rollout("incident-again", harmful, all_stages, faults=faults_of(service)))

        same, crashing = twin(folder, "no-change"), twin(folder, "crash")
        faults, most = faults_of(service), config.most_unchanged
        keep(await proof.rollout("no-change", same, all_stages, ungated=True, faults=faults, most=most))
        faults = [crash_of(service, crashing)]
        keep(await proof.rollout("crash", crashing, all_stages, ungated=True, faults=faults))
        keep(await proof.bounds())
        keep({"name": "history", "lines": service.history()})
    await relevance.close()
    return records


async def _in_a_moment(act: Callable[[], object]) -> None:
    await asyncio.sleep(1.0)
    await asyncio.to_thread(act)


def _look(searches: int, status: Mapping[str, Any]) -> dict[str, Any]:
    """What the service knows of the goal after so many searches."""
    rollout = status["rollout"]
    goal, *_ = rollout["verdict"]["findings"]
    told = {name: goal[name] for name in ("gain", "low", "high")}
    return {"searches": searches, "ratio": rollout["ratio"], "state": rollout["last"]["state"], **told}


def _tally(tally: Tally) -> dict[str, Any]:
    found = {one.name: getattr(tally, one.name) for one in fields(tally)}
    return {**found, "exposed": len(tally.exposed)}


def main(argv: Sequence[str] | None = None) -> int:
    """Go through the story, and write ab.json, ab.png and README.md."""
    parser = argparse.ArgumentParser(
        prog="python -m training.canary.ab", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("training/configs/ab.toml"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/ab"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/ab"), help="(%(default)s)")
    args = parser.parse_args(argv)
    config = read_config(args.config, AbConfig)
    args.run_dir.mkdir(parents=True, exist_ok=True)
    needs = job_searches(read_config(config.drill, DrillConfig).loop.data_dir / "jobs")
    harmful = harmful_checkpoint(config.drill, config.hack, config.gate, args.run_dir)
    records = asyncio.run(prove(config, args.run_dir, needs, harmful))
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "ab.json", json.dumps(records, indent=1) + "\n")
    draw(records, args.out / "ab.png")
    told = page(records, datetime.now(UTC).date())
    write_whole(args.out / "README.md", told)
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
