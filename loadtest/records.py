"""What became of every request, in columns: 36 bytes each, half an hour of them a few megabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REWRITE, SIGNALS, EVENTS = range(3)
KINDS = ("rewrite", "signals", "events")
SHED, RETRIED, CUT, ALTERED = 1, 2, 4, 8
"""Flags: refused with Retry-After; answered by a second try; a stage of the signals is neutral for want of
time; the original did not come back as it was sent."""

COLUMNS = np.dtype(
    [
        ("intended", "f8"),
        ("sent", "f8"),
        ("done", "f8"),
        ("journey", "i4"),
        ("status", "i2"),  # of HTTP; 0: no answer
        ("kind", "u1"),
        ("reason", "u1"),
        ("cache", "u1"),
        ("arm", "u1"),
        ("checkpoint", "u1"),
        ("flags", "u1"),
    ]
)
WORDS = ("reason", "cache", "arm", "checkpoint")
"""Columns that hold the place of a word in a list of its own; place 0 is none."""
Rows = NDArray[Any]


@dataclass
class Records:
    """Rows of COLUMNS in the order in which requests ended; times in seconds from the start of the load."""

    words: dict[str, list[str]] = field(default_factory=lambda: {name: [""] for name in WORDS})
    _rows: Rows = field(default_factory=lambda: np.zeros(1024, COLUMNS))
    _count: int = 0

    @property
    def rows(self) -> Rows:
        """Those so far: a view, not to be kept while more come."""
        return self._rows[: self._count]

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a row; words are given as words, what is absent is 0 or none."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        row = self._rows[self._count]
        for name, value in values.items():
            row[name] = self._place(name, value) if name in self.words else value
        self._count += 1

    def is_word(self, column: str, words: Sequence[str]) -> NDArray[np.bool_]:
        """Which rows have one of these words in a column."""
        known = self.words[column]
        return np.isin(self.rows[column], [known.index(word) for word in words if word in known])

    def save(self, path: Path) -> None:
        """Write all of it as a compressed .npz."""
        words = {f"words_{name}": np.array(known) for name, known in self.words.items()}
        np.savez_compressed(path, rows=self.rows, **words)  # type: ignore[arg-type, unused-ignore]

    def _place(self, column: str, word: str | None) -> int:
        known = self.words[column]
        if not word:
            return 0
        if word not in known:
            if len(known) > np.iinfo(np.uint8).max:
                raise ValueError(f"more than 255 different words of {column}: {word!r}")
            known.append(word)
        return known.index(word)
