"""`corewrite train loop`: from a log of searches to a checkpoint, wired together.

searches (real, or simulated over the staged stack) -> instances -> phases -> checkpoint folder
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from app.contracts.prompt import render
from app.engines.text import read_tokenizer
from app.registry.checkpoint import load_checkpoint
from app.relevance.base import Content
from training.calibrate import make_probes
from training.card import preference_card
from training.config import ConfigError, LogConfig, LoopConfig
from training.datasets.beir import Document, read_corpus
from training.datasets.followups import read_items
from training.datasets.instances import Instance
from training.datasets.ubi import Options, read_instances
from training.loop import Loop, Material
from training.loop_plot import draw_loop
from training.needs import NEEDS, Need
from training.publish import publish
from training.rating import Rater
from training.search import Stack
from training.served import ServedRewriter, served_relevance
from training.simulate import events, rankings, write_log
from training.users import User

SIMULATED_FROM = datetime(2026, 1, 1, tzinfo=UTC)


def run(config: LoopConfig, run_dir: Path, out: Path) -> None:
    """Go on with the run in `run_dir`, and write the checkpoint of its last policy to `out`.

    Raises:
        ConfigError, DataError, CheckpointError: what it needs is missing or wrong.
    """
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    claim(run_dir, config)
    catalogues = [read_documents(log.corpus) for log in config.logs]
    instances = [
        instance
        for log, documents in zip(config.logs, catalogues, strict=True)
        for instance in logged(config, log, documents, run_dir)
    ]
    learning, held_out = split(within_window(instances, config), config.reading.held_out_ratio)
    corpus = [document.content for documents in catalogues for document in documents]
    rater = Rater.over(config.reward, served_relevance(config.relevance), corpus)
    loop = Loop(config, Material(learning, held_out, rater), run_dir)
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


def read_documents(corpus: Path) -> tuple[Document, ...]:
    """Read a BEIR corpus, or the fashion folder's items by their titles and attributes, without images.

    Raises:
        DataError: it is missing or malformed.
    """
    if corpus.name == "items.jsonl":
        return tuple(Document(item.item_id, item.title, item.text) for item in read_items(corpus))
    return read_corpus(corpus)


def logged(
    config: LoopConfig, log: LogConfig, documents: Sequence[Document], run_dir: Path
) -> Iterator[Instance]:
    """Return the instances of one log; what is simulated is so once, into a file in `run_dir`."""
    file = run_dir / f"searches-{log.simulated}.ndjson.gz"
    if log.simulated and not file.exists():
        needs = NEEDS[log.simulated](config.data_dir / log.simulated, log.needs, config.seed)
        simulate(config, needs, documents, log.searches, file)
    found = read_instances(
        log.events or (file,),
        {document.doc_id: Content(document.content) for document in documents},
        options=Options(num_random=config.reading.num_random, seed=config.seed),
    )
    return (trimmed(instance, config.reading.most_documents) for instance in found)


def simulate(
    config: LoopConfig, needs: Sequence[Need], documents: Sequence[Document], searches: int, file: Path
) -> None:
    """Log searches for what is needed over the staged stack, the incumbent's rewrites in all stages."""
    shown = ServedRewriter(config.checkpoint).rewrite_in_context(
        [(need.query, need.context) for need in needs]
    )

    async def work() -> list[list[str]]:
        relevance = served_relevance(config.relevance)
        found = await rankings(await Stack.over(documents, relevance), needs, shown)
        await relevance.close()
        return found

    log = events(
        needs,
        asyncio.run(work()),
        user=User(),
        searches=searches,
        start=SIMULATED_FROM,
        seed=config.seed,
    )
    write_log(log, file)


def within_window(instances: Iterable[Instance], config: LoopConfig) -> Iterator[Instance]:
    """Leave out the instances whose prompts leave no room for a completion: nobody rewrites those."""
    tokenizer, _ = read_tokenizer(config.checkpoint)
    window: int = Qwen3Config.from_pretrained(config.checkpoint).max_position_embeddings
    for instance in instances:
        prompt = tokenizer.encode(render(instance.query, instance.context), add_special_tokens=False)
        if len(prompt.ids) + config.sampling.max_tokens <= window:
            yield instance


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
