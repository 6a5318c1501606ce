from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from training import scaling
from training.config import RunConfig, read_config
from training.datasets.examples import read_tsv
from training.datasets.jobs import read_jobs
from training.scaling import POINTS, Point, greedy, judge, vary, write_share
from training.sft import train

CONFIG = Path(__file__).parents[3] / "training" / "configs" / "default.toml"


def test_each_point_differs_from_the_first_in_one_respect() -> None:
    config = read_config(CONFIG, RunConfig)
    first, *rest = [vary(config, point, 100, Path("d")).model_dump() for point in POINTS]
    for point, other in zip(POINTS[1:], rest, strict=True):
        differing = {key for key in first if first[key] != other[key]} - {"name"}
        expected = {"data": set(), "steps": {"optim"}, "size": {"model"}}.get(point.axis)
        assert differing == expected if expected is not None else len(differing) == 1
    assert len({point.label for point in POINTS}) == len(POINTS)


def test_a_share_has_fewer_titles_and_none_that_is_held_out(mini_data: Path, tmp_path: Path) -> None:
    whole = read_jobs(mini_data / "jobs")
    write_share(mini_data / "jobs", whole, 0.5, tmp_path)
    half = read_jobs(tmp_path)
    assert len(half.train) == round(len(whole.train) / 2)
    assert {title for title, _ in half.train} <= {title for title, _ in whole.train}
    assert half.hidden == whole.hidden
    assert not half.seen
    assert {row["onet_code"] for row in read_tsv(tmp_path / "labels_train.tsv")} == set(whole.hidden)


def test_what_is_judged_is_the_sequence_probability(
    mini_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = train(mini_config, tmp_path)
    queries = ["Night Bakers", "a considerably longer title of Carpenters"]
    together = greedy(model, tokenizer, queries)
    [(text, logprob)] = greedy(model, tokenizer, queries[:1])
    assert together[0] == (text, pytest.approx(logprob, abs=1e-3))  # padding changes nothing
    split = read_jobs(mini_config.data_dir / "jobs")
    right = {t.title: split.canonical[t.onet_code].casefold() for t in split.seen}
    monkeypatch.setattr(
        scaling,
        "greedy",
        lambda *given: [(right.get(q, "x"), -0.5 if q in right else -2.0) for q in given[2]],
    )
    assert judge(model, tokenizer, split) == {
        "accuracy": 1.0,
        "probability_known": pytest.approx(math.exp(-0.5), abs=1e-4),
        "probability_hidden": pytest.approx(math.exp(-2.0), abs=1e-4),
        "auroc": 1.0,
    }


def test_only_missing_points_are_run(
    mini_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("")
    monkeypatch.setattr(scaling, "read_config", lambda *_: mini_config)
    monkeypatch.setattr(scaling, "POINTS", (Point("all", "one"), Point("steps", "two", steps_ratio=0.5)))
    out = tmp_path / "scaling.json"
    out.write_text(json.dumps({"rows": [{"label": "one", "accuracy": 0.5}]}))
    torch.manual_seed(0)
    arguments = ["--config", str(config), "--out", str(out), "--steps", "4", "--runs", str(tmp_path / "runs")]
    assert scaling.main(arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["label"] for row in rows] == ["one", "two"]
    assert rows[0]["accuracy"] == 0.5
    assert rows[1]["steps"] == 2
