"""What a run must keep: limits from a TOML file, and the verdict on what was measured. Pure.

PASS: every limit is kept. FAIL: one is not, or what it is about could not be measured. INVALID: the generator
itself was late or busy, so that what was measured is not the server alone; it is neither of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from training.config import Section

Verdict = Literal["PASS", "FAIL", "INVALID"]
Measures = Mapping[str, float | None]


class Limit(Section):
    """One number that is held to a limit, the limit itself included."""

    measure: str = Field(description="a name of `loadtest.measure`")
    scenarios: tuple[str, ...] = Field(default=(), description="in which it holds; none: in all")
    least: float | None = None
    most: float | None = None
    unit: str
    why: str

    @model_validator(mode="after")
    def _has_one_end(self) -> Self:
        if (self.least is None) == (self.most is None):
            raise ValueError(f"{self.measure}: `least` or `most`, one of the two")
        return self

    def holds(self, value: float | None) -> bool:
        """Whether a measured value keeps it; one that was not measured does not."""
        if value is None or math.isnan(value):
            return False
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)

    def told(self) -> str:
        """The limit in words."""
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


class Slos(Section):
    """The file: limits of the generator, and of the service. Of two on one measure the later one holds."""

    generator: tuple[Limit, ...] = Field(min_length=1)
    slo: tuple[Limit, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One limit beside what was measured."""

    limit: Limit
    value: float | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """All findings of a scenario, and what they come to."""

    verdict: Verdict
    findings: tuple[Finding, ...]


def limits_of(limits: Sequence[Limit], scenario: str) -> list[Limit]:
    """Return those that hold in a scenario, one for each measure."""
    chosen = {limit.measure: limit for limit in limits if not limit.scenarios or scenario in limit.scenarios}
    return list(chosen.values())


def judge(slos: Slos, scenario: str, measures: Measures) -> Judgement:
    """Return the verdict on what a scenario has measured."""

    def found(limits: Sequence[Limit]) -> list[Finding]:
        values = [(limit, measures.get(limit.measure)) for limit in limits_of(limits, scenario)]
        return [Finding(limit, value, limit.holds(value)) for limit, value in values]

    own, service = found(slos.generator), found(slos.slo)
    kept = all(finding.holds for finding in service)
    verdict: Verdict = "PASS" if kept else "FAIL"
    if not all(finding.holds for finding in own):
        verdict = "INVALID"
    return Judgement(verdict, (*own, *service))
