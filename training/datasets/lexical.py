"""Job titles that nobody wrote, labelled by a teacher: what character n-grams know, for the rewriter.

A decoder trained from scratch on 37,000 titles learns them by heart and generalises worse to new ones than a
linear classifier over words and character n-grams (fastText's model, Joulin et al., EACL 2017), which also
doubts more where it should. So the classifier is trained first, on the same titles, and labels recombined
ones; the decoder learns from labels sampled from its distribution (knowledge distillation, Hinton et al.
2015).
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import torch
from torch import nn
from torch.nn import functional

from training.datasets.examples import Example
from training.datasets.jobs import JobSplit
from training.datasets.typos import one_typo

BUCKETS, DIM = 1 << 16, 128
EPOCHS, BATCH, RATE, DROPOUT, SEED = 8, 512, 2e-2, 0.7, 2
SIZES = (3, 4, 5)

MIX_RATIO, SWAP_RATIO, DROP_RATIO, TYPO_RATIO = 0.35, 0.25, 0.20, 0.10

_WORD = re.compile(r"[a-z0-9]+")


class LexicalTeacher(nn.Module):
    """p(occupation | title) from the mean of hashed n-gram embeddings. Trained on construction (a minute).

    The draw of a call is a function of the generator given to it: torch's global state is left alone.
    """

    def __init__(self, split: JobSplit) -> None:
        super().__init__()
        self.titles = sorted(set(split.canonical.values()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self._embed = nn.EmbeddingBag(BUCKETS, DIM, mode="mean")
            nn.init.normal_(self._embed.weight, std=0.1)
            self._out = nn.Linear(DIM, len(self.titles))
            self._fit(split)
        self.eval()

    @torch.no_grad()
    def sample(self, title: str, rng: Random) -> str:
        """Draw an occupation's title from the distribution for a job title."""
        shares = self._logits([features(title)])[0].softmax(-1)
        return self.titles[rng.choices(range(len(shares)), weights=shares.tolist())[0]]

    @torch.no_grad()
    def best(self, titles: Sequence[str]) -> list[str]:
        """Return the most probable occupation's title of each job title."""
        return [self.titles[i] for i in self._logits([features(t) for t in titles]).argmax(-1).tolist()]

    def _logits(self, bags: Sequence[Sequence[int]]) -> torch.Tensor:
        starts = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        logits: torch.Tensor = self._out(self._embed(torch.tensor([i for bag in bags for i in bag]), starts))
        return logits

    def _fit(self, split: JobSplit) -> None:
        place = {title: number for number, title in enumerate(self.titles)}
        rows = [(title, codes) for title, codes in split.train]
        rows += [(title, (code,)) for code, title in split.canonical.items()]
        # A title of several occupations counts once in all.
        data = [
            (features(title), place[split.canonical[code]], 1 / len(codes))
            for title, codes in rows
            for code in codes
        ]
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.0)
        rng, steps = Random(SEED), EPOCHS * -(-len(data) // BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        for _ in range(EPOCHS):
            rng.shuffle(data)
            for start in range(0, len(data), BATCH):
                batch = data[start : start + BATCH]
                bags = [[i for i in bag if rng.random() >= DROPOUT] or bag[:1] for bag, _, _ in batch]
                losses = functional.cross_entropy(
                    self._logits(bags), torch.tensor([label for _, label, _ in batch]), reduction="none"
                )
                loss = (losses * torch.tensor([weight for _, _, weight in batch])).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
                optimizer.step()
                schedule.step()


def features(title: str) -> list[int]:
    """Return the buckets of a title's words (twice: they say most), word pairs and character n-grams."""
    words = _WORD.findall(title.casefold())
    found = [f"w:{word}" for word in words] * 2
    found += [f"b:{first} {second}" for first, second in pairwise(words)]
    for word in (f"<{word}>" for word in words):
        found += [word[i : i + size] for size in SIZES for i in range(len(word) - size + 1)]
    return [zlib.crc32(feature.encode()) % BUCKETS for feature in found] or [0]


class RecombinedTitles:
    """Draws titles made of the words of real ones, labelled by the teacher."""

    def __init__(self, split: JobSplit) -> None:
        self._teacher = LexicalTeacher(split)
        self._titles = split.train
        self._of_occupation: defaultdict[str, list[str]] = defaultdict(list)
        for title, codes in split.train:
            for code in codes:
                self._of_occupation[code].append(title)

    def draw(self, rng: Random) -> Example:
        """Draw one title and a label."""
        title = self._recombined(rng)
        query = one_typo(title, rng) if rng.random() < TYPO_RATIO else title
        return Example(query=query, target=self._teacher.sample(title, rng))

    def _recombined(self, rng: Random) -> str:
        title, codes = rng.choice(self._titles)
        words = title.split()
        roll = rng.random()
        if roll < MIX_RATIO:
            # The head of one title, the tail of another of the same occupation.
            other = rng.choice(self._of_occupation[rng.choice(codes)]).split()
            mixed = words[: rng.randint(1, len(words))] + other[rng.randrange(len(other)) :]
            return " ".join(dict.fromkeys(mixed))
        if (roll := roll - MIX_RATIO) < SWAP_RATIO:
            words[rng.randrange(len(words))] = rng.choice(rng.choice(self._titles)[0].split())
        elif roll - SWAP_RATIO < DROP_RATIO and len(words) > 1:
            del words[rng.randrange(len(words))]
        return " ".join(words)
