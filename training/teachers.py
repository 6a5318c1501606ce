"""What labels job titles that nobody wrote: two classifiers that know more than 39,000 titles can teach.

A decoder trained from scratch learns its titles by heart and generalises worse to new ones than either
teacher. The lexical one is fastText's model (Joulin et al., EACL 2017) over words and character n-grams; the
semantic one a small network over sentence embeddings (all-MiniLM-L6-v2), which has read the web. They err on
different titles: together, as the normalised geometric mean of their distributions, they are right more often
than each alone. The decoder learns from their labels (knowledge distillation, Hinton et al. 2015).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.datasets.jobs import JobSplit
from training.retrieval import EMBEDDING_DIM, cached_embeddings

BUCKETS, DIM, SIZES = 1 << 16, 128, (3, 4, 5)
WIDTH = 1024
# Rows of length 1 have entries of about 0.05; this brings them to about 1.
EMBEDDING_SCALE = EMBEDDING_DIM**0.5
BATCH, SEED = 512, 2
BEST = 8

_WORD = re.compile(r"[a-z0-9]+")
_Inputs = TypeVar("_Inputs")


@dataclass(frozen=True, slots=True)
class Labels:
    """The most probable occupations' titles of one job title, best first, and their probabilities."""

    titles: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Training data: job titles, for each row the place of its title and of its label, and its weight."""

    titles: list[str]
    title: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor


class Teachers:
    """p(occupation | title) by both classifiers. Trained on construction: some minutes on one core.

    A function of the split alone; torch's global random state is left as it was.
    """

    def __init__(self, split: JobSplit) -> None:
        self.titles = sorted(set(split.canonical.values()))
        rows = _rows(split, self.titles)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self._lexical = Lexical(rows, len(self.titles))
            self._semantic = Semantic(rows, len(self.titles))

    @torch.no_grad()
    def label(self, job_titles: Sequence[str]) -> list[Labels]:
        """Return the `BEST` most probable labels of each job title."""
        vectors = embedded(job_titles)
        found: list[Labels] = []
        for start in range(0, len(job_titles), BATCH):
            part = slice(start, start + BATCH)
            logs = self._lexical(bags(job_titles[part])).log_softmax(-1)
            logs += self._semantic(vectors[part]).log_softmax(-1)
            shares, places = (logs / 2).softmax(-1).topk(min(BEST, len(self.titles)))
            found += [
                Labels(tuple(self.titles[place] for place in row), tuple(share))
                for row, share in zip(places.tolist(), shares.tolist(), strict=True)
            ]
        return found


class Lexical(nn.Module):
    """Mean of hashed n-gram embeddings, then a linear layer."""

    EPOCHS, RATE, DROPOUT = 8, 2e-2, 0.7

    def __init__(self, rows: _Rows, labels: int) -> None:
        super().__init__()
        self._embed = nn.EmbeddingBag(BUCKETS, DIM, mode="mean")
        nn.init.normal_(self._embed.weight, std=0.1)
        self._out = nn.Linear(DIM, labels)
        every = bags(rows.titles)

        def thinned(places: torch.Tensor) -> list[list[int]]:
            chosen = [every[place] for place in places.tolist()]
            kept = (torch.rand(sum(map(len, chosen))) >= self.DROPOUT).tolist()
            draw = iter(kept)
            return [[bucket for bucket in bag if next(draw)] or bag[:1] for bag in chosen]

        optimizer = torch.optim.AdamW(self.parameters(), lr=self.RATE, weight_decay=0.0)
        _fit(self, thinned, rows, optimizer, self.EPOCHS)

    def forward(self, found: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return logits [bags, labels]."""
        starts = torch.tensor([0, *(len(bag) for bag in found[:-1])]).cumsum(0)
        logits: torch.Tensor = self._out(self._embed(torch.tensor([i for bag in found for i in bag]), starts))
        return logits


class Semantic(nn.Module):
    """One hidden layer over sentence embeddings."""

    EPOCHS, RATE, DECAY = 12, 1.5e-3, 0.05

    def __init__(self, rows: _Rows, labels: int) -> None:
        super().__init__()
        self._layers = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(EMBEDDING_DIM, WIDTH),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Linear(WIDTH, labels),
        )
        vectors = embedded(rows.titles)
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.RATE, weight_decay=self.DECAY)
        _fit(self, lambda places: vectors[places], rows, optimizer, self.EPOCHS)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return logits [rows of `vectors`, labels]."""
        logits: torch.Tensor = self._layers(vectors)
        return logits


def bags(titles: Sequence[str]) -> list[list[int]]:
    """Return for each title the buckets of its words (twice: they say most), word pairs and n-grams."""
    return [_bag(title) for title in titles]


def embedded(titles: Sequence[str]) -> torch.Tensor:
    """Return sentence embeddings [titles, EMBEDDING_DIM], entries of about 1."""
    return torch.from_numpy(np.array(cached_embeddings(titles)) * np.float32(EMBEDDING_SCALE))


def _bag(title: str) -> list[int]:
    words = _WORD.findall(title.casefold())
    found = [f"w:{word}" for word in words] * 2
    found += [f"b:{first} {second}" for first, second in pairwise(words)]
    for word in (f"<{word}>" for word in words):
        found += [word[i : i + size] for size in SIZES for i in range(len(word) - size + 1)]
    return [zlib.crc32(feature.encode()) % BUCKETS for feature in found] or [0]


def _rows(split: JobSplit, labels: Sequence[str]) -> _Rows:
    place = {title: number for number, title in enumerate(labels)}
    given = [*split.train, *((title, (code,)) for code, title in split.canonical.items())]
    # A title of several occupations counts once in all.
    flat = [
        (number, place[split.canonical[code]], 1 / len(codes))
        for number, (_, codes) in enumerate(given)
        for code in codes
    ]
    numbers, wanted, weights = zip(*flat, strict=True)
    return _Rows(
        [title for title, _ in given], torch.tensor(numbers), torch.tensor(wanted), torch.tensor(weights)
    )


def _fit(
    model: Callable[[_Inputs], torch.Tensor],
    inputs: Callable[[torch.Tensor], _Inputs],
    rows: _Rows,
    optimizer: torch.optim.Optimizer,
    epochs: int,
) -> None:
    """Minimise the weighted cross-entropy; the rate falls linearly to 0. Leaves dropout switched off."""
    steps = epochs * -(-len(rows.label) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(rows.label)), BATCH):
            logits = model(inputs(rows.title[batch]))
            losses = functional.cross_entropy(logits, rows.label[batch], reduction="none")
            optimizer.zero_grad()
            (losses * rows.weight[batch]).mean().backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            schedule.step()
    if isinstance(model, nn.Module):
        model.eval()
