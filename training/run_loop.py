"""`corewrite train loop`: from a log of searches to a checkpoint, wired together.

searches (real, or simulated over the staged stack) -> instances -> phases -> checkpoint folder
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from app.contracts.prompt import render
from app.engines.text import read_tokenizer
from app.ray_actors import Workers
from app.registry.checkpoint import load_checkpoint
from app.relevance.base import Content
from training.calibrate import make_probes
from training.card import preference_card
from training.config import ConfigError, LoopConfig
from training.datasets.beir import Document, read_corpus
from training.datasets.instances import Instance
from training.datasets.ubi import Options, read_instances
from training.loop import Loop, Material
from training.loop_plot import draw_loop
from training.on_ray import RayRollout
from training.publish import publish
from training.rollout import LocalRollout, Rollout, served_rater
from training.search import Stack
from training.served import ServedRewriter, served_relevance
from training.simulate import events, job_needs, rankings, write_log
from training.users import User

SIMULATED_FROM = datetime(2026, 1, 1, tzinfo=UTC)


def run(config: LoopConfig, run_dir: Path, out: Path, workers: Workers | None = None) -> None:
    """Go on with the run in `run_dir`, and write the checkpoint of its last policy to `out`.

    Completions are drawn and rated by `workers` of Ray, or without any in this process.

    Raises:
        ConfigError, DataError, CheckpointError: what it needs is missing or wrong.
    """
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    claim(run_dir, config)
    load_checkpoint(config.checkpoint)  # one that the last policy could not be published from is refused now
    documents = read_corpus(config.log.corpus)
    logs = config.log.events or (simulated_log(config, documents, run_dir / "searches.ndjson.gz"),)
    learning, held_out = split(
        (
            trimmed(instance, config.log.most_documents)
            for instance in read_instances(
                logs,
                {document.doc_id: Content(document.content) for document in documents},
                options=Options(num_random=config.log.num_random, seed=config.seed),
            )
        ),
        config.log.held_out_ratio,
    )
    rollout = make_rollout(config, [document.content for document in documents], workers)
    loop = Loop(config, Material(learning, held_out, rollout), run_dir)
    policy = loop.run()
    draw_loop(run_dir, config.phases, run_dir / "phases.png")
    publish_policy(config, loop, policy, held_out, out)


def claim(run_dir: Path, config: LoopConfig) -> None:
    """Make the folder this run's, or see that it is.

    Raises:
        ConfigError: it holds a run of another configuration, which cannot be gone on with.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "config.json"
    # How many threads compute is no part of what is computed.
    own = config.model_dump(mode="json", exclude={"threads"})
    if not file.exists():
        file.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    if other := [name for name in own if known.get(name) != own[name]]:
        raise ConfigError(
            f"{run_dir} holds a run with another `{other[0]}`: go on with that configuration, "
            "or name another --run-dir"
        )


def make_rollout(config: LoopConfig, corpus: Sequence[str], workers: Workers | None) -> Rollout:
    """Return what draws and rates; how it is distributed is no part of what is computed."""
    if workers is None:
        threads = config.threads or os.cpu_count() or 1
        return LocalRollout(config.sampling, served_rater(config, corpus, threads), threads=threads)
    # Both travel to every actor, whose working directory is another.
    counted = corpus if "overlap" in config.reward.scorers else ()
    placed = config.model_copy(update={"relevance": config.relevance.resolve()})
    return RayRollout(config.sampling, partial(served_rater, placed, counted, workers.threads), workers)


def publish_policy(
    config: LoopConfig, loop: Loop, policy: Path, held_out: Sequence[Instance], out: Path
) -> None:
    """Write the checkpoint of a policy: calibrated anew, its parent named."""
    parent = load_checkpoint(config.checkpoint)
    model = Qwen3ForCausalLM.from_pretrained(policy, dtype=torch.float32)
    phases = [
        json.loads((loop.folder(phase) / "measures.json").read_text(encoding="utf-8"))
        for phase in range(config.phases + 1)
    ]
    tokenizer, _ = read_tokenizer(policy)
    publish(
        model,
        tokenizer,
        out,
        checkpoint_id=config.name,
        max_tokens=model.config.max_position_embeddings,
        training={"config": config.model_dump(mode="json", exclude={"data_dir"})},
        card=partial(preference_card, config, parent.id, phases),
        probes=make_probes(config.data_dir),
        parent=config.checkpoint,
        prompts=[render(instance.query, instance.context) for instance in held_out],
    )


def simulated_log(config: LoopConfig, documents: Sequence[Document], file: Path) -> Path:
    """Make a log of simulated searches for job titles, with the incumbent's rewrites in all stages."""
    if file.exists():
        return file
    needs = job_needs(config.data_dir / "jobs", config.log.needs, config.seed)
    queries = [need.query for need in needs]
    shown = ServedRewriter(config.checkpoint).rewrite(queries)

    async def work() -> list[list[str]]:
        relevance = served_relevance(config.relevance)
        found = await rankings(
            await Stack.over(documents, relevance), needs, dict(zip(queries, shown, strict=True))
        )
        await relevance.close()
        return found

    searches = events(
        needs,
        asyncio.run(work()),
        user=User(),
        searches=config.log.searches,
        start=SIMULATED_FROM,
        seed=config.seed,
    )
    write_log(searches, file)
    return file


def split(instances: Iterable[Instance], held_out_ratio: float) -> tuple[list[Instance], list[Instance]]:
    """Return instances to learn from and those that only measure, by a hash of the query."""
    learning: list[Instance] = []
    held_out: list[Instance] = []
    for instance in instances:
        share = zlib.crc32(instance.query.casefold().encode()) / 2**32
        (held_out if share < held_out_ratio else learning).append(instance)
    return learning, held_out


def trimmed(instance: Instance, most: int) -> Instance:
    """The instance with at most so many clicked and skipped documents, those of the highest rates."""
    clicked, skipped = (
        tuple(sorted(seen, key=lambda one: -one.rate)[:most]) for seen in (instance.clicked, instance.skipped)
    )
    return replace(instance, clicked=clicked, skipped=skipped)
