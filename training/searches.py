"""Logs of searches, real or simulated -> instances to learn from, and those that only measure."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from app.contracts.manifest import DataWindow
from app.engines.text import read_tokenizer
from app.relevance.base import Content
from training.config import LogConfig, SearchesConfig
from training.datasets.beir import Document, read_corpus
from training.datasets.followups import read_items
from training.datasets.instances import Instance, Search
from training.datasets.ubi import Instances, Options, read_instances
from training.needs import NEEDS, Need
from training.sampling import prompt_ids
from training.search import Stack
from training.served import ServedRewriter, served_relevance
from training.simulate import events, rankings, write_log
from training.users import User

Asked = TypeVar("Asked", Instance, Search)


@dataclass(frozen=True, slots=True)
class Searches:
    """What the logs of a configuration say.

    Args:
        learning, held_out: instances to learn from, and those that only measure.
        unclicked: searches without a click in any log.
        corpus: the texts of all documents.
        window: when they were searched for; None where nothing was.
    """

    learning: Sequence[Instance]
    held_out: Sequence[Instance]
    unclicked: Sequence[Search]
    corpus: Sequence[str]
    window: DataWindow | None = None


def read_searches(config: SearchesConfig, run_dir: Path) -> Searches:
    """Read the logs of a configuration; those it has simulated are made once, in `run_dir`.

    Raises:
        DataError, CheckpointError: what it needs is missing or wrong.
    """
    catalogues = [read_documents(log.corpus) for log in config.logs]
    instances, unclicked, spans = [], [], []
    for log, documents in zip(config.logs, catalogues, strict=True):
        found = logged(config, log, documents, run_dir)
        instances += [trimmed(instance, config.reading.most_documents) for instance in found]
        unclicked += found.unclicked
        spans += [found.span] if found.span else []
    learning, held_out = split(within_window(instances, config), config.reading.held_out_ratio)
    clicked = {Search(instance.query, instance.context) for instance in instances}  # in another log
    unclicked = [search for search in unclicked if search not in clicked]
    corpus = [document.content for documents in catalogues for document in documents]
    return Searches(learning, held_out, list(within_window(unclicked, config)), corpus, window_of(spans))


def window_of(spans: Sequence[tuple[datetime, datetime]]) -> DataWindow | None:
    """Return the window that has all spans of first and last events."""
    if not spans:
        return None
    first, last = min(first for first, _ in spans), max(last for _, last in spans)
    return DataWindow(first=first, last=last + timedelta(microseconds=1))


def read_documents(corpus: Path) -> tuple[Document, ...]:
    """Read a BEIR corpus, or the fashion folder's items by their titles and attributes, without images.

    Raises:
        DataError: it is missing or malformed.
    """
    if corpus.name == "items.jsonl":
        return tuple(Document(item.item_id, item.title, item.text) for item in read_items(corpus))
    return read_corpus(corpus)


def logged(config: SearchesConfig, log: LogConfig, documents: Sequence[Document], run_dir: Path) -> Instances:
    """Return the instances of one log; what is simulated is so once, into a file in `run_dir`."""
    file = run_dir / f"searches-{log.simulated}.ndjson.gz".replace(" ", "-")
    if log.simulated and not file.exists():
        folder, make = NEEDS[log.simulated]
        needs = make(config.data_dir / folder, log.needs, config.seed)
        simulate(config, needs, documents, log.searches, file)
    return read_instances(
        log.events or (file,),
        {document.doc_id: Content(document.content) for document in documents},
        options=Options(
            since=config.since,
            until=config.until,
            num_random=config.reading.num_random,
            most_unclicked=config.reading.most_unclicked,
            seed=config.seed,
        ),
    )


def simulate(
    config: SearchesConfig, needs: Sequence[Need], documents: Sequence[Document], searches: int, file: Path
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
        start=config.simulated_from,
        seed=config.seed,
    )
    write_log(log, file)


def within_window(searches: Iterable[Asked], config: SearchesConfig) -> Iterator[Asked]:
    """Leave out the searches whose prompts leave no room for a completion: nobody rewrites those."""
    tokenizer, _ = read_tokenizer(config.checkpoint)
    window = config.sampling.max_model_tokens
    for search in searches:
        if len(prompt_ids(tokenizer, search)) + config.sampling.max_tokens <= window:
            yield search


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
