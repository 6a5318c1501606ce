"""The gate's policy: what is looked at, which way is worse, and how much worse is too much. A TOML file.

level = 0.05            of every decision; see training/gate/verdict.py
resamples = 2000        of the paired bootstrap

[goal]                  what a promotion must gain
metrics = ["ndcg@10", "judge_gain"]    the first of these that was measured
gain = 0.0              more than this, in its units

[metrics.copy_ratio]    for each metric
direction = "lower"     the better way; "either": neither is, both ways are harm
margin = 0.05           how much worse than the incumbent is still as good
low, high               where the candidate's own mean must lie, whatever the incumbent's
required = true         without it there is no verdict
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from training.config import Section, read_config

DEFAULT_POLICY = Path(__file__).parents[1] / "configs" / "gate.toml"

Direction = Literal["higher", "lower", "either"]


class Rule(Section):
    """What one metric must not do. Units are the metric's own."""

    direction: Direction = Field(description="the better way; either: any change is harm")
    margin: float | None = Field(
        default=None, ge=0, description="how much worse than the incumbent is still as good; unset: no matter"
    )
    low: float | None = Field(default=None, description="the candidate's mean must be above")
    high: float | None = Field(default=None, description="the candidate's mean must be below")
    required: bool = Field(default=True, description="not measured: there is no verdict")

    @model_validator(mode="after")
    def _decides_something(self) -> Self:
        if self.margin is None and self.low is None and self.high is None:
            raise ValueError("a rule needs a margin, a low or a high: it decides nothing")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class Goal(Section):
    """What a promotion must gain: the first metric of these that was measured, by more than `gain`."""

    metrics: tuple[str, ...] = Field(min_length=1)
    gain: float = Field(default=0.0, ge=0)


class Policy(Section):
    """All rules. Metrics that no rule names are measured and shown, and decide nothing."""

    level: float = Field(default=0.05, gt=0, lt=0.5, description="of every decision, one-sided")
    resamples: int = Field(default=2000, ge=100, description="of the paired bootstrap")
    seed: int = 1
    window: int = Field(gt=0, description="queries that a window should have: what its power was measured at")
    goal: Goal
    metrics: dict[str, Rule] = Field(min_length=1)

    @model_validator(mode="after")
    def _goals_have_a_direction(self) -> Self:
        for name in self.goal.metrics:
            rule = self.metrics.get(name)
            if rule is None or rule.direction == "either":
                raise ValueError(f"the goal {name} needs a rule that says whether higher or lower is better")
        return self


def read_policy(path: Path = DEFAULT_POLICY) -> Policy:
    """Read a policy. Raises ConfigError, naming the file, the field and what is wrong with it."""
    return read_config(path, Policy)
