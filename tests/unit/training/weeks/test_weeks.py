"""The story of the weeks: what serves, what passes, what is measured; it goes on where it was stopped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from loop_configs import loop_config
from small_checkpoint import write_checkpoint

from app.registry.checkpoint import load_checkpoint
from app.registry.place import Place
from app.registry.store import Registry
from training.config import LoopConfig
from training.cycle import CycleConfig, Steps
from training.gate.window import WindowConfig
from training.measures import Floats
from training.needs import Need
from training.weeks.drift import Wanted
from training.weeks.plot import draw_weeks, page
from training.weeks.run import Weeks, WeeksConfig
from training.weeks.world import Rankings, compared, traffic

FIRST = datetime(2026, 1, 5, tzinfo=UTC)
NEEDS = [Need(f"title {number}", frozenset({f"d{number % 7}"})) for number in range(50)]
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "PASS")


class FakeWorld:
    """Each newer checkpoint puts what is wanted one place higher."""

    def __init__(self) -> None:
        self.served: list[str] = []

    def shown(self, needs: Sequence[Need], serving: Path) -> dict[str, Rankings]:
        self.served.append(load_checkpoint(serving).id)
        better = 0 if self.served[-1] == "first" else 1
        return {
            kind: [_ranking(need, 3 - up) for need in needs]
            for kind, up in (("original", -1), ("frozen", 0), ("stable", better))
        }

    def apart(self, serving: Path, is_alive: Callable[[Wanted], bool]) -> dict[str, Floats]:
        alive = np.array([is_alive(need.relevant) for need in NEEDS], np.float64)
        assert 0 < alive.sum() <= len(NEEDS)
        assert not is_alive(frozenset({"nobody"}))
        return {"frozen": alive, "stable": alive + (load_checkpoint(serving).id != "first")}


def _ranking(need: Need, place: int) -> list[str]:
    others = [f"d{number}" for number in range(7) if f"d{number}" not in need.relevant]
    return [*others[:place], *need.relevant, *others[place:]]


class Told:
    """The long steps: what they were told."""

    def __init__(self) -> None:
        self.loops: list[LoopConfig] = []

    def train(self, loop: LoopConfig, run_dir: Path, out: Path) -> None:
        del run_dir
        self.loops.append(loop)
        write_checkpoint(out, checkpoint_id=loop.name, weights=loop.name)

    def gate(
        self, candidate: Path, incumbent: Path, window: WindowConfig, policy: Path | None, folder: Path
    ) -> str:
        del candidate, incumbent, window, policy
        verdict = VERDICTS[len(self.loops) - 1]
        folder.mkdir()
        rows = [
            {"metric": "judge", "limit": limit, "bound": 0, "state": verdict, "reason": ""}
            for limit in ("goal", "margin")
        ]
        (folder / "gate.json").write_text(
            json.dumps({"verdict": verdict, "decisions": rows, "means": {"judge": _MEANS}})
        )
        return verdict


_MEANS = {"candidate": 0.5, "incumbent": 0.4}


def weeks(folder: Path, told: Told, world: FakeWorld, count: int = 4) -> Weeks:
    first = folder / "first"
    if not first.exists():
        write_checkpoint(first, checkpoint_id="first")
    loop = loop_config(folder, name="week", checkpoint=first)
    config = WeeksConfig(cycle=CycleConfig(loop=loop), first=FIRST, weeks=count, life=3, titles=12)
    return Weeks(config, folder / "weeks", NEEDS, world, Steps(told.train, told.gate))


def test_what_passes_serves_from_the_next_week_on(tmp_path: Path) -> None:
    told, world = Told(), FakeWorld()
    records = weeks(tmp_path, told, world).run()
    assert [one["verdict"] for one in records] == list(VERDICTS)
    assert world.served == ["first", *["week-20260112"] * 3]
    assert [one["held_up_by"] for one in records] == [[], ["judge"], ["judge"], []]
    registry = Registry(Place.at(str(tmp_path / "weeks" / "registry")))
    assert registry.stored(registry.resolve("stable")).manifest.checkpoint_id == "week-20260202"
    trail = [move.why for move in registry.aliases.history("stable")]
    assert trail == ["the first one", "week 1: passed the gate", "week 4: passed the gate"]
    for week, one in enumerate(records):
        gain = one["traffic"]["gain"]["mean"]
        assert gain == pytest.approx(0 if week == 0 else 1 / np.log2(4) - 1 / np.log2(5))
        assert one["apart"]["gain"]["mean"] == (week > 0)
        assert one["traffic"]["original"] < one["traffic"]["frozen"]
        assert one["titles"] == one["traffic"]["queries"] <= 12
        assert one["occupations"] > one["came_up"] >= 0


def test_each_week_learns_from_its_own_log(tmp_path: Path) -> None:
    told = Told()
    weeks(tmp_path, told, FakeWorld(), count=2).run()
    for week, loop in enumerate(told.loops):
        begin = FIRST + week * timedelta(days=7)
        ((log,),) = [one.events for one in loop.logs]
        assert log == tmp_path / "weeks" / f"{week + 1:02}" / "searches.ndjson.gz"
        with gzip.open(log, "rt") as lines:
            times = [datetime.fromisoformat(json.loads(line)["timestamp"]) for line in lines]
        assert begin <= min(times)
        assert begin + timedelta(days=6) < max(times) < begin + timedelta(days=7, hours=1)
        assert loop.since == begin


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    told, world = Told(), FakeWorld()
    first = weeks(tmp_path, told, world, count=2).run()
    assert weeks(tmp_path, told, world, count=2).run() == first
    assert len(told.loops) == len(world.served) == 2
    (tmp_path / "weeks" / "02" / "week.json").unlink()  # killed as the last thing of the week
    assert weeks(tmp_path, told, world, count=2).run() == first
    assert len(told.loops) == len(world.served) == 2


def test_gains_are_paired_and_told(tmp_path: Path) -> None:
    needs = NEEDS[:7]
    shown = {
        "original": [_ranking(need, 5) for need in needs],
        "frozen": [_ranking(need, 1) for need in needs],
        "stable": [_ranking(need, 0) for need in needs],
    }
    found = compared(traffic(needs, shown))
    assert found["stable"] == 1
    assert found["gain"]["mean"] == found["gain"]["low"] == pytest.approx(1 - 1 / np.log2(3))
    record = {
        "week": 1,
        "occupations": 7,
        "came_up": 2,
        "titles": 7,
        "verdict": "FAIL",
        "held_up_by": ["judge", "kl"],
        "traffic": found,
        "apart": {"queries": 1, "frozen": 0.5, "stable": 0.25, "gain": {"mean": -0.25, "low": -1, "high": 0}},
    }
    told = page([record])
    assert (
        "| 1 | 7 (2) | 7 | 0.356 | 0.631 | 1.000 | +0.369 [+0.369, +0.369] | 0.500 | 0.250 "
        "| -0.250 [-1.000, +0.000] | FAIL | judge, kl |" in told
    )
    assert "1 weeks: 1 FAIL. " in told
    assert "+0.3691 (this week's searches, all stages), -0.2500 (titles apart" in told
    draw_weeks([record, record | {"week": 2, "verdict": "PASS"}], tmp_path / "weeks.png")
    assert (tmp_path / "weeks.png").stat().st_size > 5000
