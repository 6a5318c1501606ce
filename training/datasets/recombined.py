"""Job titles that nobody wrote, made of the words of real ones and labelled by teachers.

39,000 titles are few for a decoder: it sees each a dozen times and learns them by heart. Recombined ones are
different at almost every draw, and their labels say how sure one may be.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

from training.datasets.examples import Example
from training.datasets.jobs import JobSplit
from training.datasets.typos import one_typo
from training.teachers import Teachers

POOL, SEED = 60_000, 5
MIX_RATIO, SWAP_RATIO, DROP_RATIO, TYPO_RATIO = 0.35, 0.25, 0.20, 0.10


class RecombinedTitles:
    """Draws from a pool of recombined titles, the target by the teachers' probabilities.

    Making the pool takes some minutes, most of it the teachers' training and sentence embeddings, which are
    kept on disk.
    """

    def __init__(self, split: JobSplit, *, pool: int = POOL) -> None:
        rng, recombine = Random(SEED), Recombiner(split)
        titles = sorted({recombine(rng) for _ in range(pool)})
        self._pool = list(zip(titles, Teachers(split).label(titles), strict=True))

    def draw(self, rng: Random) -> Example:
        """Draw one title, sometimes misspelt, and one of its labels."""
        title, labels = rng.choice(self._pool)
        target = rng.choices(labels.titles, weights=labels.probabilities)[0]
        return Example(query=one_typo(title, rng) if rng.random() < TYPO_RATIO else title, target=target)


class Recombiner:
    """Makes one title of the words of others: a function of the generator's state."""

    def __init__(self, split: JobSplit) -> None:
        self._titles = split.train
        self._of_occupation: defaultdict[str, list[str]] = defaultdict(list)
        for title, codes in split.train:
            for code in codes:
                self._of_occupation[code].append(title)

    def __call__(self, rng: Random) -> str:
        """Mix two titles of an occupation, swap or drop a word, or leave a title as it is."""
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
