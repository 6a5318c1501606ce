"""From searches to a policy: wired together, and blind to every dev label."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRelevance
from loop_configs import loop_config

import training.searches
from app.cli import main
from app.contracts.manifest import MANIFEST_NAME, address_of
from app.contracts.prompt import Context, Item
from app.ray_actors import Workers
from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from app.relevance.base import Content
from app.relevance.choice import DEFAULT_RELEVANCE
from training.card import preference_card
from training.cli_train import run_loop
from training.config import ConfigError, LogConfig, LoopConfig, SampleConfig, SearchesConfig
from training.datasets.beir import Document
from training.datasets.examples import DataError
from training.datasets.instances import Instance, Seen
from training.evaluate import Rewrite
from training.needs import Need
from training.on_ray import workers_for
from training.run_loop import claim, run
from training.searches import (
    Searches,
    logged,
    read_documents,
    read_searches,
    simulate,
    split,
    trimmed,
    within_window,
)

WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from app.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write("\\n".join(opened))
sys.exit(code)
"""


JOBS = {"corpus": "corpus.jsonl", "simulated": "jobs"}


def config_of(folder: Path, *logs: Mapping[str, Any]) -> LoopConfig:
    return loop_config(folder, logs=logs)


class ClosedRelevance(FakeRelevance):
    async def close(self) -> None:
        pass


def instance(query: str) -> Instance:
    clicked = tuple(Seen(Content(f"{query} {n}"), rate) for n, rate in enumerate((0.2, 0.9, 0.5)))
    return Instance(query, clicked, clicked[:1], ())


def test_a_query_is_on_one_side_whatever_else_is_in_the_log() -> None:
    instances = [instance(f"query {n}") for n in range(1000)]
    learning, held_out = split(instances, 0.2)
    assert 150 < len(held_out) < 250
    assert len(learning) + len(held_out) == 1000
    some = split(instances[::3], 0.2)[1]
    assert {one.query for one in some} == {one.query for one in held_out} & {
        one.query for one in instances[::3]
    }


def test_what_the_window_has_no_room_for_is_left_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, JOBS).model_copy(update={"checkpoint": DEFAULT_CHECKPOINT})
    long = replace(instance("in blue"), context=Context(previous_queries=("0.1.2.3.4.5.6.7" * 10,) * 3))
    found = list(within_window([instance("in blue"), long, instance("x" * 9999)], config))
    assert found == [instance("in blue")]
    roomy = config.model_copy(update={"sampling": SampleConfig(max_tokens=1 << 20)})
    assert not list(within_window(found, roomy))


def test_the_documents_of_the_highest_rates_are_kept() -> None:
    kept = trimmed(instance("q"), 2)
    assert [seen.rate for seen in kept.clicked] == [0.9, 0.5]
    assert trimmed(instance("q"), 9) == trimmed(instance("q"), 3)


def test_a_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path, JOBS)
    claim(tmp_path / "run", config)
    claim(tmp_path / "run", config.model_copy(update={"threads": 7}))
    with pytest.raises(ConfigError, match=r"another `seed`: go on with"):
        claim(tmp_path / "run", config.model_copy(update={"seed": 2}))


def test_a_log_without_a_click_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, JOBS).model_copy(update={"checkpoint": DEFAULT_CHECKPOINT})
    monkeypatch.setattr("training.run_loop.read_searches", lambda *_: Searches([], [], [], []))
    with pytest.raises(DataError, match="no search with a click to learn from"):
        run(config, tmp_path / "run", tmp_path / "out")


def test_an_unusable_config_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from argparse import Namespace  # noqa: PLC0415 - only here

    assert run_loop(Namespace(config=tmp_path / "none.toml", run_dir=tmp_path, out=None)) == 2
    assert "none.toml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("both", [{}, {"events": (Path("log"),), "simulated": "jobs"}])
def test_a_log_is_either_real_or_simulated(tmp_path: Path, both: Any) -> None:
    with pytest.raises(ValueError, match=r"name either its `events` or what is `simulated`"):
        LogConfig(corpus=tmp_path, **both)
    assert LogConfig(corpus=tmp_path, events=(tmp_path,)).simulated is None


def test_a_loop_needs_logs_and_simulates_each_kind_once(tmp_path: Path) -> None:
    simulated = {"corpus": tmp_path, "simulated": "jobs"}
    with pytest.raises(ValueError, match="simulates the same searches twice"):
        config_of(tmp_path, simulated, simulated)
    with pytest.raises(ValueError, match="at least 1 item"):
        config_of(tmp_path)
    real = {"corpus": tmp_path, "events": (tmp_path,)}
    assert len(config_of(tmp_path, real, simulated, real).logs) == 3


def test_a_card_names_the_logs(tmp_path: Path) -> None:
    logs = ({"corpus": tmp_path, "events": (tmp_path,)}, {"corpus": tmp_path, "simulated": "fashion"})
    card = preference_card(
        config_of(tmp_path, *logs), "parent", {}, parameters=1, reliability={}, observations=[]
    )
    assert "clicked and skipped in logged searches, 2,000 simulated queries for fashion (Mixed" in card


def test_each_log_is_read_with_its_own_documents(
    tmp_path: Path, write_jsonl: Callable[[str, list[dict[str, Any]]], Path]
) -> None:
    item = {"gender": "Men", "article_type": "Shirts", "base_colour": "Blue", "usage": "Casual"}
    corpora = [
        write_jsonl("corpus.jsonl", [{"_id": "1", "title": "", "text": "nurse"}]),
        write_jsonl("items.jsonl", [{"id": "1", "title": "Nike Shirt", **item}]),
    ]
    click = {"action_name": "click", "query_id": "q", "user_query": "x", "timestamp": 0}
    click["event_attributes"] = {"object": {"object_id": "1"}}
    log = write_jsonl("log.ndjson", [click])
    config = config_of(tmp_path, *({"corpus": corpus, "events": (log,)} for corpus in corpora))
    found = [
        seen.content.text
        for of in config.logs
        for one in logged(config, of, read_documents(of.corpus), tmp_path)
        for seen in one.clicked
    ]
    assert found == ["nurse", "Nike Shirt Men, Shirts, Blue, Casual"]


def test_a_search_is_unclicked_that_no_log_has_clicks_for(
    tmp_path: Path, write_jsonl: Callable[[str, list[dict[str, Any]]], Path]
) -> None:
    def event(action: str, text: str) -> dict[str, Any]:
        shown = {"object": {"object_id": "1"}}
        return {
            "action_name": action,
            "query_id": text,
            "user_query": text,
            "timestamp": 0,
            "event_attributes": shown,
        }

    corpus = write_jsonl("corpus.jsonl", [{"_id": "1", "title": "", "text": "nurse"}])
    one = write_jsonl("one.ndjson", [event("click", "icu rn"), event("impression", "mig")])
    other = write_jsonl("other.ndjson", [event("impression", "icu rn"), event("impression", "baker")])
    config = config_of(tmp_path, *({"corpus": corpus, "events": (log,)} for log in (one, other)))
    config = config.model_copy(update={"checkpoint": DEFAULT_CHECKPOINT})
    found = read_searches(config, tmp_path)
    assert [instance.query for instance in (*found.learning, *found.held_out)] == ["icu rn"]
    assert {search.query for search in found.unclicked} == {"mig", "baker"}


def test_the_incumbent_rewrites_what_is_needed_in_its_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words after two items: each is shown what the rewrite of its own brings up."""

    class Incumbent:
        def __init__(self, _: Path) -> None:
            pass

        def rewrite_in_context(self, asked: Sequence[tuple[str, Context]]) -> list[list[Rewrite]]:
            return [[Rewrite(f"blue {of.last_item.title}", 1.0)] for _, of in asked if of.last_item]

    monkeypatch.chdir(tmp_path)  # where embeddings are kept
    monkeypatch.setattr(training.searches, "ServedRewriter", Incumbent)
    monkeypatch.setattr(training.searches, "served_relevance", lambda _: ClosedRelevance())
    titles = ("abba", "deed")
    needs = [Need("in blue", frozenset({title}), Context(last_item=Item(title))) for title in titles]
    documents = [Document(name, "", f"blue {name}") for name in (*titles, "zzz")]
    simulate(config_of(tmp_path, JOBS), needs, documents, 1, tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    after = {
        line["query_id"]: line["query_attributes"]["context"]["last_item"]["title"]
        for line in lines
        if "query_attributes" in line
    }
    first = {
        after[line["query_id"]]: line["event_attributes"]["object"]["object_id"]
        for line in lines
        if line.get("action_name") == "impression" and line["event_attributes"]["position"]["ordinal"] == 0
    }
    assert first == {title: title for title in titles}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workers", "2"], "are for --engine ray"),
        (["--ray-address", "auto"], "are for --engine ray"),
        (["--engine", "ray", "--workers", "0"], "at least 1"),
    ],
)
def test_workers_are_rays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    command = ["train", "loop", "--config", "training/configs/loop.toml", "--run-dir", str(tmp_path / "run")]
    assert main([*command, *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("engine", "gpus"), [("vllm", "all"), ("embedded", "none"), ("auto", "some")])
def test_workers_take_a_gpu_where_their_engine_can_use_one(tmp_path: Path, engine: str, gpus: str) -> None:
    config = loop_config(tmp_path, sampling={"engine": engine})
    assert workers_for(config, 3, address=None) == Workers(3, 1, gpus)  # type: ignore[arg-type]


@pytest.fixture
def small_data(shared_data: Path, tmp_path: Path) -> Path:
    """The real data in its layout, with fewer products and items: embedding all of them takes minutes."""
    for name in ("jobs", "context"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(shared_data / name)
    for name, lines in (("products/corpus.jsonl", 500), ("fashion/items.jsonl", 1500)):
        (tmp_path / "data" / name).parent.mkdir()
        with (shared_data / name).open() as file:
            (tmp_path / "data" / name).write_text("".join(islice(file, lines)))
    return tmp_path / "data"


def test_no_dev_label_is_opened_by_a_whole_run(small_data: Path, tmp_path: Path) -> None:
    """As a user runs it, on the real data, every file that the process opens written down."""
    config = tmp_path / "loop.toml"
    config.write_text(f"""
name = "watched"
seed = 1
data_dir = "{small_data}"
checkpoint = "app/registry/default"
relevance = "{DEFAULT_RELEVANCE}"
phases = 1
instances = 8
threads = 1
[[logs]]
corpus = "{small_data}/jobs/corpus.jsonl"
simulated = "jobs"
needs = 15
searches = 6
[[logs]]
corpus = "{small_data}/products/corpus.jsonl"
simulated = "products"
needs = 8
searches = 6
[[logs]]
corpus = "{small_data}/fashion/items.jsonl"
simulated = "fashion"
needs = 8
searches = 6
[reading]
held_out_ratio = 0.2
[sampling]
num_generations = 4
[pairs]
tie = 0.0
""")
    command = [sys.executable, "-c", WATCH, str(tmp_path / "opened"), "train", "loop"]
    command += ["--config", str(config), "--run-dir", str(tmp_path / "run")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    opened = (tmp_path / "opened").read_text().splitlines()
    read = {str(Path(name).relative_to(small_data)) for name in opened if str(small_data) in name}
    assert {"jobs/corpus.jsonl", "jobs/labels_train.tsv", "jobs/synonyms_train.tsv"} <= read
    assert {"products/corpus.jsonl", "fashion/items.jsonl"} <= read
    assert not [name for name in read if "qrels" in name or "queries" in name or "dev" in name]
    lines = gzip.decompress((tmp_path / "run" / "searches-fashion.ndjson.gz").read_bytes()).splitlines()
    asked = [attributes for line in lines if (attributes := json.loads(line).get("query_attributes"))]
    assert len(asked) == 8 * 6
    assert all(attributes["context"]["last_item"]["title"] for attributes in asked)
    measured = json.loads((tmp_path / "run" / "phase-01" / "measures.json").read_text())
    assert 0 <= measured["improved"] <= 1
    assert (tmp_path / "run" / "phases.png").read_bytes().startswith(b"\x89PNG")
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint")
    parent, window = (
        address_of((DEFAULT_CHECKPOINT / MANIFEST_NAME).read_bytes()),
        checkpoint.manifest.data_window,
    )
    assert (checkpoint.id, checkpoint.manifest.parent) == ("watched", parent)
    assert window is not None
    assert window.first == SearchesConfig.model_fields["simulated_from"].default
    assert str(checkpoint.manifest.reward_version).startswith("relevance-2@")
    card = (checkpoint.path / "README.md").read_text(encoding="utf-8")
    assert f"| 1 | {measured['reward']} |" in card
