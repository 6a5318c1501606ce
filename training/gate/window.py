"""The window that a candidate is judged on: searches of some days, newer than what it has learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydantic import Field

from app.contracts.manifest import DataWindow, Manifest
from training.config import SearchesConfig, Section
from training.datasets.beir import Task, read_task
from training.datasets.examples import DataError
from training.datasets.instances import Instance
from training.searches import read_searches


class LabelsConfig(Section):
    """Human labels: a split of a BEIR folder."""

    data: Path
    split: str


class WindowConfig(SearchesConfig):
    """`corewrite gate --data`: searches, and labels where there are any."""

    labels: tuple[LabelsConfig, ...] = Field(default=(), description="what nDCG@10 is measured on")
    held_out: bool = Field(
        default=False, description="only the queries that a loop with the same `reading` never learns from"
    )


@dataclass(frozen=True, slots=True)
class Window:
    """What both checkpoints answer.

    Args:
        instances: searches with what people clicked and skipped.
        tasks: labelled queries with their corpora.
        span: when the searches were logged.
    """

    instances: tuple[Instance, ...]
    tasks: tuple[Task, ...]
    span: DataWindow


def read_window(config: WindowConfig, folder: Path, *, most: int) -> Window:
    """Read it; what is simulated is so once, into `folder`.

    Args:
        config: which searches and labels.
        folder: for simulated logs.
        most: so many searches at most, drawn by the seed.

    Raises:
        DataError: something is missing or malformed, or nothing was clicked.
        CheckpointError: a model that simulation needs cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    searches = read_searches(config, folder)
    found = list(searches.held_out) if config.held_out else [*searches.learning, *searches.held_out]
    if not found or searches.window is None:
        raise DataError("the window has no search with a click: widen since and until, or name other logs")
    found.sort(key=lambda one: (one.query.casefold(), repr(one.context)))
    chosen = Random(config.seed).sample(found, min(most, len(found)))
    tasks = tuple(read_task(labels.data, labels.split) for labels in config.labels)
    return Window(tuple(chosen), tasks, searches.window)


def problem_of(manifest: Manifest, window: Window) -> str | None:
    """Say why the candidate may not be judged on this window; None where it may."""
    name, learnt, first = manifest.checkpoint_id, manifest.data_window, window.span.first
    if learnt is None:
        return f"{name} does not say what it has learnt from: whether the window is new to it cannot be known"
    if first < learnt.last:
        return (
            f"the window begins {first:%Y-%m-%d %H:%M}, before {learnt.last:%Y-%m-%d %H:%M}, when what "
            f"{name} has learnt from ends: name a newer one"
        )
    return None
