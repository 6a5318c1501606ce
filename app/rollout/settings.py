"""The settings of rollouts; app/settings.py has the others, and how they are read."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from app.rewrite.answer import STAGES, Stage


class RolloutSettings(BaseSettings):
    """A part of `app.settings.Settings`."""

    rollouts: SecretStr | None = Field(
        default=None,
        description=(
            "SQLAlchemy URL of the store of rollouts: `sqlite:///rollouts.db` for one machine, "
            "`postgresql+psycopg://...` (corewrite[postgres]) for many replicas; needs corewrite[rollout]. "
            "Unset: there are none, and nothing is counted."
        ),
    )
    assignment_salt: str = Field(
        default="corewrite",
        min_length=1,
        description=(
            "What clients are dealt to buckets and to the holdout by. The same in all replicas, and for "
            "good: another one deals everybody anew."
        ),
    )
    holdout_ratio: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description=(
            "Share of the clients (0..1) who always get the original, for good. It tells what rewriting is "
            "worth in all. 0: a deployment decides to pay for that; 0.01 is common."
        ),
    )
    stable_stages: tuple[Stage, ...] = Field(
        default=STAGES,
        description=(
            "JSON list of the stages that may use rewrites where no rollout was ever promoted. All: without "
            "rollouts there is nothing to wait for. `[]` before a first launch."
        ),
    )
    exposure_key: SecretStr | None = Field(
        default=None,
        description=(
            "Key of the tokens by which events find where their search counts, the same in all replicas. "
            "Unset: each process makes its own, which is enough for one."
        ),
    )
    exposure_memory: int = Field(
        default=100_000,
        ge=0,
        description=(
            "Searches remembered, so that the calls of one count once and its events need no token. 100,000: "
            "the searches of some minutes in about 30 MB."
        ),
    )
    rollout_poll_s: float = Field(
        default=0.25,
        gt=0,
        le=1.0,
        description=(
            "Seconds between looks at the store and at the kill file. 0.25: what is decided there held here "
            "after 0.26 s in the median, 0.27 s at most, of 20 times at two replicas (results/ab)."
        ),
    )
    rollout_flush_s: float = Field(
        default=1.0,
        gt=0,
        description=(
            "Seconds within which what was counted is in the store: it is flushed twice in each. 1: so much "
            "a crash may lose of searches, and so long an event waits to be acknowledged at most, while a "
            "flush takes less than half of it."
        ),
    )
    enabled: bool = Field(
        default=True,
        description="False answers every query with the original alone (`disabled`): the kill switch.",
    )
    kill_file: Path | None = Field(
        default=None,
        description=(
            "While this file is there, everybody gets the original from this replica. Unset: none is looked "
            "for. For when the store is what is broken."
        ),
    )
    rollout_controller: bool = Field(
        default=True,
        description=(
            "Whether this replica may decide on rollouts; of those that may, one does. True: no process of "
            "its own is needed for it."
        ),
    )
    rollout_decide_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds between decisions on a rollout. 10: harm is not shown much faster.",
    )
