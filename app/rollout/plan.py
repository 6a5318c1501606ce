"""How a checkpoint reaches everybody: steps, what must be seen at each, what must not happen. A TOML file."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import PlanError
from app.rewrite.answer import STAGES, Stage
from app.rollout.assignment import BUCKETS

Metric = Literal["changed", "clicks", "strict", "fallback", "latency_s"]
Scale = Literal["relative", "absolute"]


def _whole_buckets(ratio: float) -> float:
    if abs(ratio * BUCKETS - round(ratio * BUCKETS)) > 1e-6:  # noqa: PLR2004 -- what floats leave
        raise ValueError(f"must be a multiple of {1 / BUCKETS:g}: {BUCKETS} buckets of clients are dealt")
    return ratio


Share = Annotated[float, Field(ge=1 / BUCKETS, le=1), AfterValidator(_whole_buckets)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Table):
    """A share of the traffic, and what has to be seen of it before the next."""

    ratio: Share = Field(description="of the buckets that get the canary")
    min_searches: int = Field(default=0, ge=0, description="by the canary's clients in this step")
    min_s: float = Field(default=0.0, ge=0, description="seconds in this step")


class Limit(_Table):
    """A metric by search that the canary is held to, against `stable` at the same time."""

    metric: Metric
    better: Literal["higher", "lower"]
    scale: Scale = "relative"
    margin: float = Field(ge=0, description="to be promoted it must be shown not to be worse by more")
    tolerated: float = Field(default=0.0, ge=0, description="shown to be worse by more it is rolled back")


class Goal(_Table):
    """What the canary must be better in to be promoted."""

    metric: Metric = "changed"
    better: Literal["higher", "lower"] = "lower"
    scale: Scale = "relative"


class Plan(_Table):
    """A rollout's plan."""

    stages: tuple[Stage, ...] = Field(
        default=STAGES, min_length=1, description="that take the canary's rewrites; the others stay neutral"
    )
    steps: tuple[Step, ...] = Field(min_length=1, description="the last one has everybody")
    goal: Goal = Goal()
    guardrails: tuple[Limit, ...] = Field(min_length=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="of a false promotion, and a false rollback")
    srm_alpha: float = Field(default=0.001, gt=0, lt=0.5, description="of a false sample ratio mismatch")
    planned_searches: int = Field(
        default=100_000, gt=0, description="by each arm, at which the intervals are to be tightest"
    )
    max_s: float = Field(default=14 * 86_400.0, gt=0, description="seconds; without a gain by then, back")
    stale_s: float = Field(default=60.0, gt=0, description="data older than so many seconds promote nothing")
    prepare_s: float = Field(default=30.0, ge=0, description="seconds for replicas to load it, before step 1")

    @model_validator(mode="after")
    def _grows_to_all(self) -> Self:
        ratios = [step.ratio for step in self.steps]
        if ratios[-1] != 1.0 or any(later <= earlier for earlier, later in pairwise(ratios)):
            raise ValueError("steps must grow, and the last one must have ratio = 1.0")
        if len(set(self.stages)) != len(self.stages):
            raise ValueError("each stage may be named once")
        if self.goal.metric in {limit.metric for limit in self.guardrails}:
            raise ValueError(f"{self.goal.metric} is the goal, whose harm is guarded against anyway")
        return self


def read_plan(text: str) -> Plan:
    """Return the plan of a TOML text.

    Raises:
        PlanError: it is none; the message names the field.
    """
    try:
        return Plan.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"plan: {error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in problem["loc"]) or "plan"
        raise PlanError(f"{name}: {problem['msg']}") from error
