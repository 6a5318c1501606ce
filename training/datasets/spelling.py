"""Misspelt product phrases and words -> their right spelling; right ones are left as they are.

Phrases are the word n-grams of a shop's own catalogue. Of the misspelling lists only the rows under MIT or
Apache-2.0 are read (`source` is exactly "typos"): the others are CC BY-SA.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import accumulate
from pathlib import Path
from random import Random

from training.datasets.examples import Example, read_jsonl, read_tsv
from training.datasets.typos import one_typo

FREE_SOURCE = "typos"
CLEAN_RATIO = 0.35
MIN_PHRASE_COUNT = 3
MIN_LETTERS = 2
WORD = re.compile(r"[^\W_]+(?:[-./][^\W_]+)*")


class ProductPhrases:
    """Phrases of 1 to 3 words of the catalogue, drawn by the square root of their frequency."""

    def __init__(self, folder: Path) -> None:
        counts: Counter[str] = Counter()
        for product in read_jsonl(folder / "corpus.jsonl"):
            for field in (
                product["title"],
                product["text"],
                product.get("product_type"),
                product.get("brand"),
            ):
                words = WORD.findall((field or "").casefold())
                for size in (1, 2, 3):
                    starts = range(len(words) - size + 1)
                    counts.update({" ".join(words[start : start + size]) for start in starts})
        # Numbers alone teach nothing about spelling.
        kept = sorted(
            p for p, n in counts.items() if n >= MIN_PHRASE_COUNT and sum(map(str.isalpha, p)) >= MIN_LETTERS
        )
        self._rare = sorted(
            p for p, n in counts.items() if n < MIN_PHRASE_COUNT and p.replace(" ", "").isalpha()
        )
        self._phrases = {
            size: [phrase for phrase in kept if phrase.count(" ") == size - 1] for size in (1, 2, 3)
        }
        self._cumulative = {
            size: list(accumulate(counts[phrase] ** 0.5 for phrase in phrases))
            for size, phrases in self._phrases.items()
        }

    def rare(self, rng: Random) -> str:
        """Draw a phrase of one or two words that the catalogue has too seldom to be trained on."""
        return rng.choice(self._rare)

    def draw(self, rng: Random) -> Example:
        """Draw a phrase; misspelt by one typo unless it is one of the clean ones."""
        size = rng.choices((1, 2, 3), weights=(5, 4, 1))[0]
        phrase = rng.choices(self._phrases[size], cum_weights=self._cumulative[size])[0]
        query = phrase if rng.random() < CLEAN_RATIO else one_typo(phrase, rng)
        return Example(query=query, target=phrase)


class Misspellings:
    """Known misspellings of English words, alone or beside a word spelt right."""

    def __init__(self, path: Path) -> None:
        self._pairs = [
            (row["misspelling"], row["correction"]) for row in read_tsv(path) if row["source"] == FREE_SOURCE
        ]
        self._words = sorted({correction for _, correction in self._pairs})

    def draw(self, rng: Random) -> Example:
        """Draw a misspelling and its correction, or a word that needs none."""
        wrong, right = rng.choice(self._pairs)
        if rng.random() < CLEAN_RATIO:
            wrong = right
        elif rng.random() < CLEAN_RATIO:
            wrong = one_typo(right, rng)
        if rng.random() < CLEAN_RATIO:
            other = rng.choice(self._words)
            return Example(query=f"{wrong} {other}", target=f"{right} {other}")
        return Example(query=wrong, target=right)
