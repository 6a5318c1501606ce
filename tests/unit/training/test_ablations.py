"""The bench of ablations: what is run, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import training.ablations
from training.ablation_bench import Plan, Variant, cost_of, varied
from training.ablations import SPLITS, Record, fill, in_order, main
from training.ablations_plot import COSTS, MEASURES, draw_ablations, spread, table
from training.config import merged, read_config

CONFIG = Path("training/configs/ablations.toml")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_config(CONFIG, Plan)


def test_the_first_variant_is_the_loop_and_each_other_differs(plan: Plan) -> None:
    configs = [varied(plan.loop, variant, 7) for variant in plan.variants]
    same, *others = (config.model_dump(exclude={"name"}) for config in configs)
    assert same == plan.loop.model_dump(exclude={"name"}) | {"seed": 7}
    for variant, config in zip(plan.variants[1:], others, strict=True):
        assert (config == same) == (variant.rival is not None), variant.name
    assert len({(variant.group, variant.name) for variant in plan.variants}) == len(plan.variants)


def test_sync_intervals_see_about_as_many_instances(plan: Plan) -> None:
    configs = [varied(plan.loop, variant, 1) for variant in plan.variants if variant.group == "sync"]
    for config in configs:
        assert config.phases * config.instances == pytest.approx(
            plan.loop.phases * plan.loop.instances, rel=0.02
        )
    assert len({config.phases for config in configs}) == len(configs)


def test_a_change_goes_into_the_table_it_names(plan: Plan) -> None:
    changed = varied(
        plan.loop, Variant(group="g", name="n", changes={"reward": {"gamma": 9.0}, "phases": 2}), 3
    )
    assert (changed.reward.gamma, changed.reward.alpha) == (9.0, plan.loop.reward.alpha)
    assert (changed.phases, changed.seed, changed.name) == (2, 3, "n-3")
    with pytest.raises(ValidationError, match="gama"):
        varied(plan.loop, Variant(group="g", name="n", changes={"reward": {"gama": 9.0}}), 3)
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


def test_a_run_costs_what_its_steps_took(tmp_path: Path) -> None:
    for phase, seconds in ((1, 2.0), (2, 3.5)):
        folder = tmp_path / f"phase-0{phase}"
        folder.mkdir()
        (folder / "seconds.jsonl").write_text(
            "".join(json.dumps({"step": step, "seconds": seconds}) + "\n" for step in ("sampling", "pass"))
        )
        (folder / "steps.jsonl").write_text("{}\n" * phase)
        (folder / "pairs.jsonl").write_text(json.dumps({"chosen_ids": [1, 2], "rejected_ids": [3]}) + "\n")
    assert cost_of(tmp_path, 2) == {"syncs": 2, "steps": 3, "seconds": 11.0, "tokens": 6}


def row(variant: str, seed: int, value: float, group: str = "loss") -> dict[str, Any]:
    return {"group": group, "variant": variant, "seed": seed, **dict.fromkeys((*MEASURES, *COSTS), value)}


def test_seeds_are_drawn_as_their_mean_and_range(tmp_path: Path) -> None:
    rows = [row("one", 1, 1.0), row("other", 1, 5.0), row("one", 2, 4.0), row("never", 1, 2.0, "sync")]
    assert spread(rows, "reward") == {
        ("loss", "one"): (2.5, 1.0, 4.0),
        ("loss", "other"): (5.0, 5.0, 5.0),
        ("sync", "never"): (2.0, 2.0, 2.0),
    }
    draw_ablations({"start": row("start", 0, 0.0), "rows": rows}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ablations.png", "sync-interval.png"}
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_the_page_has_means_and_ranges() -> None:
    rows = [row("one", 1, 1.0), row("one", 2, 4.0), row("never", 1, 2.0, "sync")]
    arm = {
        "arm": "parallel",
        "checkpoint": "seed 1",
        "ndcg@10": 0.25,
        "delta": 0.01,
        "delta_ci": [-0.01, 0.03],
    }
    stages = {"dev_seen": [arm, arm | {"arm": "none"}]}
    record = {"machine": "two cores", "start": row("start", 0, 0.5), "stages": stages, "rows": rows}
    page = table(record).splitlines()
    assert "| loss: one | 2 | " + " | ".join(["2.500 [1.000, 4.000]"] * 4 + ["2"] * 4) + " |" in page
    assert "| sync: never | 1 | " + " | ".join(["2.000"] * 4 + ["2"] * 4) + " |" in page
    (stage,) = [line for line in page if line.startswith("| dev_seen")]
    assert stage == "| dev_seen | parallel | seed 1 | 0.2500 | +0.0100 | [-0.0100, +0.0300] |"
    widths = [line.count("|") for line in page if line.startswith("|")]
    assert set(widths[: widths.index(7)]) == {11}


def test_rows_that_are_there_are_not_run_again(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends of a rival count as its run."""

    class Busy:
        def __init__(self, *_: object) -> None:
            raise AssertionError

    names = [
        (variant.group, f"{variant.name}, equal {budget}" if variant.rival else variant.name)
        for variant in plan.variants
        for budget in (("seconds", "tokens") if variant.rival else ("",))
    ]
    rows = [row(name, seed, 1.0, group) for group, name in names for seed in plan.seeds]
    out = tmp_path / "out.json"
    stages = {split: [] for split in SPLITS}
    content = {"machine": "one", "start": row("start", 0, 0.0), "stages": stages}
    out.write_text(json.dumps(content | {"rows": rows}))
    monkeypatch.setattr(training.ablations, "Bench", Busy)
    places = ["--out", str(out), "--plots", str(tmp_path), "--table", str(tmp_path / "page.md")]
    assert main(places) == 0
    assert (tmp_path / "page.md").exists()
    out.write_text(json.dumps(content | {"rows": rows[1:]}))
    with pytest.raises(AssertionError):
        main(places)
    out.write_text(json.dumps(content | {"rows": rows, "stages": {}}))
    with pytest.raises(AssertionError):
        main(places)


def test_a_record_keeps_what_others_add(tmp_path: Path) -> None:
    """Two that were opened on one empty file, as by two processes."""
    one, other = (Record(tmp_path / "out.json") for _ in range(2))
    one.add_start(row("start", 0, 0.0))
    other.add_rows([row("a", 1, 1.0)])
    one.add_rows([row("b", 1, 2.0)])
    one.add_stages("dev_seen", [])
    assert [found["variant"] for found in other.content["rows"]] == ["a", "b"]
    assert all(found["commit"] for found in other.content["rows"])
    assert other.content["stages"] == {"dev_seen": []}
    assert (other.has("loss", "b", 1), other.has("loss", "b", 2)) == (True, False)


def test_groups_are_run_alone(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        start = row("start", 0, 0.0)

        def __init__(self, *_: object) -> None:
            pass

        def rows(self, variant: Variant, seed: int) -> list[dict[str, Any]]:
            return [row(variant.name, seed, 1.0, variant.group)]

    monkeypatch.setattr(training.ablations, "Bench", Done)
    record = Record(tmp_path / "out.json")
    for split in SPLITS:
        record.add_stages(split, [])
    fill(record, plan, tmp_path, ["pairs"])
    found = {(one["group"], one["variant"]) for one in record.content["rows"]}
    assert {group for group, _ in found} == {"loss", "pairs"}
    assert [name for group, name in found if group == "loss"] == [plan.variants[0].name]
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out.json"), "--groups", "pears"])


def test_rows_stand_as_the_plan_has_them(plan: Plan) -> None:
    """Whichever process came first; both ends of a rival at its place."""
    names = [
        (variant.group, f"{variant.name}, equal {budget}" if variant.rival else variant.name)
        for variant in plan.variants
        for budget in (("seconds", "tokens") if variant.rival else ("",))
    ]
    rows = [row(name, seed, 1.0, group) for group, name in reversed(names) for seed in (2, 1)]
    found = in_order({"machine": "one", "rows": rows}, plan)
    assert found["machine"] == "one"
    assert [(one["group"], one["variant"], one["seed"]) for one in found["rows"]] == [
        (group, name, seed) for group, name in names for seed in (1, 2)
    ]
