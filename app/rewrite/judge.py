"""From a generation to what may be shown: guard, then calibrated confidence. Pure.

A rewrite is shown when the guard lets it pass and its confidence reaches the threshold. Shown rewrites are
ordered by confidence, ties by log-probability. Where none is left, one reason says why:

- the model's own first choice repeats the query: `no_change`;
- something passed the guard but was not trusted: `low_confidence`;
- the guard dropped everything: `guard`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from app.contracts.reasons import Drop, Reason
from app.errors import EngineFailedError
from app.rewrite import guard
from app.rewrite.answer import Judged, Rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.contracts.confidence import Calibrated
    from app.contracts.prompt import Context
    from app.engines.base import Generation


def judge(
    query: str,
    context: Context,
    generation: Generation,
    *,
    checkpoint_id: str,
    calibration: Calibrated,
    min_confidence: float,
    limits: guard.Limits,
) -> Judged:
    """Judge every completion. Confidence sees all of them, as it did when it was fitted.

    Raises:
        EngineFailedError: no completion at all, or a log-probability that is not a number.
    """
    completions = generation.completions
    if not completions or not all(math.isfinite(completion.logprob) for completion in completions):
        raise EngineFailedError(
            "the engine returned no completions, or log-probabilities that are no numbers"
        )
    subject = guard.subject_of(query, context, limits)
    verdicts: list[Drop | None] = []
    kept: set[str] = set()
    for completion in completions:
        verdict = guard.drop_of(subject, completion.text.strip(), completion.finish_reason, kept)
        verdicts.append(verdict)
        if verdict is None:
            kept.add(guard.normalised(completion.text))
    drops = Counter(verdict for verdict in verdicts if verdict is not None)

    def judged(rewrites: Sequence[Rewrite], reason: Reason | None) -> Judged:
        return Judged(tuple(rewrites), reason, dict(drops), generation.weights_digest, checkpoint_id)

    if not kept:
        return judged((), Reason.NO_CHANGE if verdicts[0] is Drop.COPY else Reason.GUARD)
    confidences = calibration.confidences(query, context, completions)
    shown = [
        Rewrite(completion.text.strip(), min(completion.logprob, 0.0), confidence)
        for completion, verdict, confidence in zip(completions, verdicts, confidences, strict=True)
        if verdict is None and min_confidence <= confidence <= 1
    ]
    if not shown:
        return judged((), Reason.NO_CHANGE if verdicts[0] is Drop.COPY else Reason.LOW_CONFIDENCE)
    shown.sort(key=lambda rewrite: (-rewrite.confidence, -rewrite.logprob))
    return judged(shown, None)
