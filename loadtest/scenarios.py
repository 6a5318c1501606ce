"""The file of scenarios: what comes when, at which servers, and what goes wrong meanwhile."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from loadtest.schedule import Piece
from training.config import Section

Share = Annotated[float, Field(ge=0)]
Deed = Literal[
    "swap", "rollout_start", "rollout_rollback",
    "redis_kill", "redis_start", "redis_stop", "redis_continue",
    "postgres_kill", "postgres_start", "store_slow", "store_fast",
    "engine_crash", "engine_heal", "replica_kill", "replica_start",
    "registry_away", "registry_back", "disk_full", "disk_free",
    "clock_ahead", "clock_back", "clock_right", "connect_idle", "connect_slow", "disconnect",
]  # fmt: skip


class Stretch(Section):
    """A part of the schedule, at a share of the rate at which this machine is saturated."""

    seconds: float = Field(gt=0)
    rate: Share | tuple[Share, Share] = Field(description="constant, or from one to another evenly")

    def piece(self, per_s: float, scale: float) -> Piece:
        """It in seconds and journeys per second."""
        start, end = self.rate if isinstance(self.rate, tuple) else (self.rate, self.rate)
        return Piece(self.seconds * scale, start * per_s, end * per_s)


class Incident(Section):
    """Something that is done to the servers while the load goes on."""

    at: float = Field(ge=0, description="seconds from the start")
    do: Deed
    to: str = Field(
        default="", description="of a swap: which checkpoint, `first` or `second`; a rollout is of the second"
    )
    fails: bool = Field(default=False, description="it must be refused; else it must be done")


class Scenario(Section):
    """One run: fresh servers, a schedule, incidents."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    why: str
    stretches: tuple[Stretch, ...] = Field(min_length=1)
    warm_s: float = Field(
        default=5.0, ge=0, description="at the start, not judged: caches and engines warm up"
    )
    calm_s: float = Field(
        default=0.0, ge=0, description="at the end, judged once more alone: all must be well again"
    )
    incidents: tuple[Incident, ...] = ()
    replicas: int = Field(default=1, ge=1, le=4)
    store: Literal["sqlite", "postgres"] = "sqlite"
    slow_store: bool = Field(default=False, description="a proxy in front of the store that can delay")
    redis: bool = False
    judged: bool = Field(
        default=False,
        description="two checkpoints that answer differently, every answer compared with what each would say",
    )
    queries: int | None = Field(default=None, gt=0, description="distinct ones; none: those of the command")
    settings: dict[str, Any] = Field(default={}, description="of the servers")

    @property
    def seconds(self) -> float:
        """Of the whole schedule."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def needs(self) -> list[str]:
        """Programs of the machine without which it cannot be run."""
        return [
            *(["redis-server"] if self.redis else []),
            *(["initdb"] if self.store == "postgres" else []),
            *(["faketime"] if self.moves_clocks else []),
        ]

    @property
    def moves_clocks(self) -> bool:
        """Whether the servers' clocks are to be moved."""
        return any(incident.do.startswith("clock") for incident in self.incidents)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        deeds = {incident.do for incident in self.incidents}
        if any(incident.at > self.seconds for incident in self.incidents):
            raise ValueError(f"{self.name}: an incident after the end")
        if self.warm_s + self.calm_s >= self.seconds:
            raise ValueError(f"{self.name}: nothing is left to judge between warm_s and calm_s")
        for prefix, has in (
            ("redis", self.redis),
            ("store", self.slow_store),
            ("postgres", self.store == "postgres"),
        ):
            if not has and any(deed.startswith(prefix) for deed in deeds):
                raise ValueError(f"{self.name}: an incident of {prefix}, which it does not have")
        if deeds & {"swap", "rollout_start"} and not self.judged:
            raise ValueError(f"{self.name}: swaps and rollouts need `judged`, which brings the checkpoints")
        if self.slow_store and self.store != "postgres":
            raise ValueError(f"{self.name}: slow_store needs store = 'postgres'")
        return self


class Traffic(Section):
    """What a journey is, in all scenarios."""

    queries: int = Field(gt=0, description="distinct ones, by popularity")
    zipf: float = Field(ge=0, description="exponent of their popularity")
    clients: int = Field(gt=0, description="people; drawn by the same law")
    candidates: tuple[int, int] = Field(description="documents of a signals call: least and most")
    document_words: int = Field(gt=0, description="at which a document is cut")
    think_s: float = Field(gt=0, description="mean seconds from an answer to the next step; exponential")
    click_ratio: float = Field(ge=0, le=1, description="searches after which something is clicked")
    strict_ratio: float = Field(ge=0, le=1, description="clicks that the user stays with")


class Scenarios(Section):
    """The whole file, in the order in which it is run; `ramp` first: the others go by what it finds."""

    traffic: Traffic
    settings: dict[str, Any] = Field(default={}, description="of all servers")
    scenario: tuple[Scenario, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [scenario.name for scenario in self.scenario]
        if len(set(names)) < len(names):
            raise ValueError("two scenarios of one name")
        return self
