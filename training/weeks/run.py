"""What weekly redeployment is worth: `python -m training.weeks.run`. It goes on where it was stopped.

Each week people search over the staged stack with the rewrites of what `stable` points to; the cycle (loop,
gate, registry) works on the log of that week alone; what passes becomes `stable`, as after a canary without
complaint. Beside it stands the first checkpoint, frozen. Measured each week, before anything is learnt of it:

    traffic    nDCG@10 of what people see, by what they want: with the original query alone, with the frozen
               checkpoint's rewrites, and with those of `stable`
    apart      nDCG@10 of first choices alone on titles that nobody searches for in any week, of the
               occupations of that week, by an encoder that no reward reads
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from pydantic import AwareDatetime, Field
from tqdm import tqdm

from app.contracts.manifest import DataWindow
from app.registry.place import Place
from app.registry.store import Registry
from training.cli_cycle import gated
from training.config import LogConfig, Section, read_config
from training.cycle import CANDIDATE, STABLE, Cycle, CycleConfig, Steps
from training.loop import write_whole
from training.measures import Floats
from training.needs import Need, job_needs
from training.run_loop import run as train
from training.simulate import BETWEEN_SEARCHES, events, write_log
from training.users import User
from training.weeks.drift import Wanted, lives, of_week
from training.weeks.plot import draw_weeks, page
from training.weeks.world import Rankings, World, compared, traffic

WHO, WEEK = "the weeks", timedelta(days=7)


class WeeksConfig(Section):
    """A simulation of weeks."""

    cycle: CycleConfig = Field(description="of every week; the simulation puts the week's log into its loop")
    first: AwareDatetime = Field(description="when the first week begins")
    weeks: int = Field(default=20, gt=0)
    life: int = Field(default=10, gt=0, description="weeks in which an occupation is searched for")
    titles: int = Field(default=400, gt=0, description="that are searched for in a week")


class Around(Protocol):
    """What `training.weeks.world.World` is, to those who only tell the story."""

    def shown(self, needs: Sequence[Need], serving: Path) -> Mapping[str, Rankings]:
        """See `World.shown`."""

    def apart(self, serving: Path, is_alive: Callable[[Wanted], bool]) -> Mapping[str, Floats]:
        """See `World.apart`."""


class Weeks:
    """All weeks of a configuration.

    Args:
        config: of all of them.
        folder: of their files.
        needs: what people may ever search for.
        world: where they do.
        steps: the long ones of the cycle.
    """

    def __init__(
        self, config: WeeksConfig, folder: Path, needs: Sequence[Need], world: Around, steps: Steps
    ) -> None:
        self._config, self._folder, self._needs = config, folder, needs
        self._world, self._steps, self._loop = world, steps, config.cycle.loop
        wanted = [need.relevant for need in needs]
        self._lives = lives(wanted, weeks=config.weeks, length=config.life, seed=self._loop.seed)
        self._registry = Registry(Place.at(str(folder / "registry")))
        digest = self._registry.push(self._loop.checkpoint)
        if self._registry.aliases.current(STABLE) is None:  # else the weeks go on, with what has passed since
            self._point(digest, "the first one")

    def run(self) -> list[dict[str, Any]]:
        """Go through the weeks that are not over; return a record of each."""
        return [self._over(week) for week in tqdm(range(self._config.weeks), desc="weeks")]

    def _over(self, week: int) -> dict[str, Any]:
        folder = self._folder / f"{week + 1:02}"
        done = folder / "week.json"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(done, json.dumps(self._week(week, folder), indent=1) + "\n")
        record: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return record

    def _week(self, week: int, folder: Path) -> dict[str, Any]:
        serving, log, measured = folder / "serving", folder / "searches.ndjson.gz", folder / "measured.json"
        if not serving.exists():
            self._registry.pull(self._registry.resolve(STABLE), serving)
        needs = of_week(self._needs, self._lives, week=week, count=self._config.titles, seed=self._loop.seed)
        first = self._config.first + week * WEEK
        if not log.exists():
            shown = self._world.shown(needs, serving)
            found = {
                "traffic": compared(traffic(needs, shown)),
                "apart": compared(self._world.apart(serving, lambda one: self._popularity(one, week) > 0)),
            }
            write_whole(measured, json.dumps(found) + "\n")
            write_log(self._searched(needs, shown["stable"], week, first), log)
        verdict = self._cycle(DataWindow(first=first, last=first + WEEK), log, folder / "cycle")
        if verdict == "PASS":
            self._point(self._registry.resolve(CANDIDATE), f"week {week + 1}: passed the gate")
        report = json.loads((folder / "cycle" / "gate" / "gate.json").read_text(encoding="utf-8"))
        alive = [life for life in self._lives.values() if life.popularity(week) > 0]
        return {
            "week": week + 1,
            "occupations": len(alive),
            "came_up": sum(life.first == week for life in alive),
            "titles": len(needs),
            "verdict": verdict,
            "held_up_by": list(
                dict.fromkeys(row["metric"] for row in report["decisions"] if row["state"] != "PASS")
            ),
            **json.loads(measured.read_text(encoding="utf-8")),
        }

    def _popularity(self, wanted: Wanted, week: int) -> float:
        life = self._lives.get(wanted)
        return life.popularity(week) if life else 0.0

    def _searched(
        self, needs: Sequence[Need], shown: Rankings, week: int, first: datetime
    ) -> Iterator[dict[str, Any]]:
        """The log: as many searches for each as fill the week."""
        searches = int(WEEK / BETWEEN_SEARCHES) // max(1, len(needs))
        seed = 1000 * self._loop.seed + week
        return events(needs, shown, user=User(), searches=searches, start=first, seed=seed)

    def _cycle(self, window: DataWindow, log: Path, folder: Path) -> str:
        logs = (LogConfig(corpus=self._loop.logs[0].corpus, events=(log,)),)
        loop = self._loop.model_copy(update={"logs": logs})
        config = self._config.cycle.model_copy(update={"loop": loop})
        return Cycle(config, window, self._registry, folder, self._steps).run()

    def _point(self, digest: str, why: str) -> None:
        self._registry.aliases.point(STABLE, digest, who=WHO, why=why, when=datetime.now(UTC))


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, and write weeks.json, weeks.png and README.md."""
    parser = argparse.ArgumentParser(
        prog="python -m training.weeks.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("training/configs/weeks.toml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/weeks"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/weeks"), help="(%(default)s)")
    args = parser.parse_args(argv)
    config = read_config(args.config, WeeksConfig)
    loop = config.cycle.loop
    needs = job_needs(loop.data_dir / "jobs", sys.maxsize, loop.seed)
    records = Weeks(config, args.runs, needs, World(loop), Steps(train, gated)).run()
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / "weeks.json", json.dumps(records, indent=1) + "\n")
    draw_weeks(records, args.out / "weeks.png")
    told = page(records)
    write_whole(args.out / "README.md", told)
    sys.stdout.write(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
