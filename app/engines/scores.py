"""What may come next, row by row: the log-probabilities of a step, the best of each row found already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

LogProbs = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Some rows of a step: natural log-probabilities over the whole vocabulary, at temperature 1.

    `logprobs` is [step's rows, vocab]; `best_ids` and `best`, [step's rows, k], are the k most probable
    tokens of each, the most probable first and of equal ones the lower id. They may be buffers of a backend,
    which its next step overwrites; `rows` are the indices meant, so that choosing rows copies nothing.
    """

    logprobs: LogProbs
    best_ids: TokenIds
    best: LogProbs
    rows: Sequence[int]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def take(self, chosen: Sequence[int]) -> Scores:
        """These of its rows, in this order."""
        return replace(self, rows=[self.rows[i] for i in chosen])

    def top(self, i: int, count: int) -> list[tuple[int, float]]:
        """The `count` best tokens of the i-th row, best first, with their log-probabilities."""
        row = self.rows[i]
        ids, best = self.best_ids[row], self.best[row]
        if count > len(ids):
            ids = np.argsort(-self.logprobs[row], kind="stable")[:count]
            best = self.logprobs[row, ids]
        return list(zip(ids[:count].tolist(), best[:count].tolist(), strict=True))

    def all(self, i: int) -> npt.NDArray[np.float64]:
        """The i-th row over the whole vocabulary."""
        return np.asarray(self.logprobs[self.rows[i]], np.float64)
