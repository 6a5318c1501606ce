"""Logits, made the scores that a backend would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from app.engines.scores import Scores


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Natural log-probabilities over the last axis, in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    logprobs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs


def scored(logits: npt.NDArray[Any], *, best: int = 3) -> Scores:
    """The scores of these rows, [rows, vocab], with the `best` of each found beforehand."""
    logprobs = log_softmax(logits).astype(np.float32)
    best_ids = np.argsort(-logprobs, kind="stable")[:, :best]
    return Scores(logprobs, best_ids, np.take_along_axis(logprobs, best_ids, 1), range(len(logits)))
