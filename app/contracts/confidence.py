"""Calibrated confidence: the probability that a rewrite is the right one, from what every engine reports.

A logistic model (Platt 1999) of three features of a completion: the log-odds of its sequence probability
(a model that is calibrated already needs no other), its log-probability per token, and its lead over the
best other completion. One set of weights per kind of rewrite, because a
log-probability means different things when a letter is mended and when a title is replaced. The weights
are fitted by the trainer on held-out titles, half of them of occupations the model never saw, and travel in
the checkpoint as `calibration.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Literal, Protocol, get_args

from app.contracts.prompt import Context

CALIBRATION_NAME = "calibration.json"
CALIBRATION_VERSION = 1

Kind = Literal["spelling", "vocabulary", "follow_up"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Two texts this alike differ by a slip or two of the keyboard; a replaced title shares far less.
SPELLING_SIMILARITY = 0.7
# Features are bounded so that one extreme value cannot outvote everything the fit has seen.
LOWEST_LOGPROB, HIGHEST_ODDS, WIDEST_LEAD = -12.0, 8.0, 8.0


class Scored(Protocol):
    """What is needed of a completion."""

    @property
    def text(self) -> str:
        """The rewrite."""

    @property
    def logprob(self) -> float:
        """Natural-log probability of all tokens."""

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens, the end token included."""


class Calibrated(Protocol):
    """What judging needs of a calibration."""

    @property
    def threshold(self) -> float:
        """Confidence below which a rewrite is withheld."""

    def confidences(self, query: str, context: Context, completions: Sequence[Scored]) -> list[float]:
        """For each completion the calibrated probability (0..1) that it is right."""


def kind_of(query: str, rewrite: str, context: Context) -> Kind:
    """Say what the rewrite does: use the context, mend the spelling, or replace the words."""
    if context:
        return "follow_up"
    matcher = SequenceMatcher(None, query.casefold(), rewrite.casefold(), autojunk=False)
    return "spelling" if matcher.ratio() >= SPELLING_SIMILARITY else "vocabulary"


def features(completions: Sequence[Scored], index: int) -> tuple[float, float, float]:
    """Return (log-odds, log-probability per token, lead over the best other completion), all in nats."""
    scored = completions[index]
    others = [other.logprob for place, other in enumerate(completions) if place != index]
    lead = scored.logprob - max(others) if others else WIDEST_LEAD
    return (
        _log_odds(max(scored.logprob, LOWEST_LOGPROB)),
        max(scored.logprob / max(1, len(scored.token_ids)), LOWEST_LOGPROB),
        min(max(lead, -WIDEST_LEAD), WIDEST_LEAD),
    )


@dataclass(frozen=True, slots=True)
class Platt:
    """sigmoid(bias + weights · features)."""

    bias: float
    weights: tuple[float, float, float]

    def probability(self, values: tuple[float, float, float]) -> float:
        """Return the calibrated probability, in (0, 1)."""
        logit = self.bias + sum(w * v for w, v in zip(self.weights, values, strict=True))
        return 1.0 / (1.0 + math.exp(-min(max(logit, -30.0), 30.0)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a checkpoint's completions are trusted. Below `threshold` a rewrite is withheld."""

    threshold: float
    kinds: Mapping[Kind, Platt]

    def confidences(self, query: str, context: Context, completions: Sequence[Scored]) -> list[float]:
        """Return one probability a completion.

        `completions` are all that the engine gave for this query, before anything is dropped: the lead of one
        is measured against the others.
        """
        return [
            self.kinds[kind_of(query, scored.text, context)].probability(features(completions, index))
            for index, scored in enumerate(completions)
        ]

    @classmethod
    def own_probability(cls, threshold: float) -> Calibration:
        """Trust a model's own probability of each completion, for want of anything fitted."""
        return cls(threshold, dict.fromkeys(KINDS, Platt(0.0, (1.0, 0.0, 0.0))))

    def to_json(self) -> str:
        """Return the text of `calibration.json`."""
        kinds = {kind: asdict(platt) for kind, platt in self.kinds.items()}
        return json.dumps(
            {"version": CALIBRATION_VERSION, "threshold": self.threshold, "kinds": kinds}, indent=1
        )

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, an unknown version, a missing kind, or a number that is none.
        """
        try:
            record = json.loads(text)
            if record["version"] != CALIBRATION_VERSION:
                raise ValueError(f"version {record['version']}, expected {CALIBRATION_VERSION}")
            kinds: dict[Kind, Platt] = {
                kind: Platt(float(record["kinds"][kind]["bias"]), _three(record["kinds"][kind]["weights"]))
                for kind in KINDS
            }
            threshold = float(record["threshold"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not a calibration: {error!r}") from error
        numbers = [threshold, *(n for platt in kinds.values() for n in (platt.bias, *platt.weights))]
        if not all(map(math.isfinite, numbers)) or not 0 <= threshold <= 1:
            raise ValueError("not a calibration: threshold must be in 0..1 and every weight finite")
        return cls(threshold, kinds)


def _log_odds(logprob: float) -> float:
    """Return ln(p / (1 - p)) of p = exp(logprob), at most `HIGHEST_ODDS`."""
    if logprob > -math.exp(-HIGHEST_ODDS):
        return HIGHEST_ODDS
    return logprob - math.log(-math.expm1(logprob))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return float(first), float(second), float(third)
