"""Where a query belongs, now: its arm, whose checkpoint writes, which stages may use it, where it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from app.rollout.assignment import Arm, Split, Variant
from app.rollout.evidence import Cell
from app.rollout.state import Deployment

if TYPE_CHECKING:
    from app.rewrite.answer import Query, Stage


NOTHING_DEPLOYED = Deployment(None, None, None)
ASKED = "asked"
"""Why a replica has stopped that was asked to, until it sees that the store has been told."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one query belongs.

    Args:
        arm: what its client is shown.
        variant: whose checkpoint writes.
        stages: that may use what it writes; none: nothing is written at all.
        cell: where the search counts, were it not impacted; None: a tester's counts nowhere.
    """

    arm: Arm
    variant: Variant
    stages: tuple[Stage, ...]
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class Dealing:
    """How traffic is dealt at a moment.

    Args:
        split: to arms.
        stages: of each variant.
        rollout: number of the rollout; 0: there is none, or nobody has its canary yet.
        step: of the rollout; where there is none, the number of the last one that is over.
        killed: everybody gets the original.
    """

    split: Split
    stages: Mapping[Variant, tuple[Stage, ...]]
    rollout: int = 0
    step: int = 0
    killed: bool = False

    def place(self, subject: str) -> Place:
        """Return where a client_id belongs, or the query_id where there is none."""
        found = self.split.assign(subject)
        stages = () if self.killed else self.stages[found.variant]
        return Place(found.arm, found.variant, stages, self._cell(found.bucket))

    def _cell(self, bucket: int) -> Cell:
        # Who was given the original for the kill switch says nothing of the canary: what is counted of them
        # is of before the next rollout, and this one's data grow old, by which nothing is promoted.
        if self.killed and self.rollout:
            return Cell(0, self.rollout, impacted=False, bucket=bucket)
        return Cell(self.rollout, self.step, impacted=False, bucket=bucket)


@dataclass(slots=True)
class Traffic:
    """Holds how traffic is dealt. Whoever follows the store changes `dealing`; requests read it.

    `stopped` has what everybody gets the original for in this replica alone, whatever the store says.
    """

    dealing: Dealing
    stopped: set[str] = field(default_factory=set)

    @property
    def killed(self) -> bool:
        """Whether everybody gets the original."""
        return bool(self.stopped) or self.dealing.killed

    def place(self, query: Query) -> Place:
        """Return where a query belongs."""
        dealing = replace(self.dealing, killed=True) if self.stopped else self.dealing
        if query.arm is None:
            return dealing.place(query.client_id or query.query_id)
        variant: Variant = "canary" if query.arm == "canary" else "stable"
        return Place(query.arm, variant, () if dealing.killed else dealing.stages[variant], None)


def dealing(
    deployment: Deployment, *, salt: str, holdout_ratio: float, stable_stages: tuple[Stage, ...]
) -> Dealing:
    """Return how traffic is dealt while this is deployed. Pure.

    Args:
        deployment: what the store says.
        salt: of the deployment.
        holdout_ratio: likewise.
        stable_stages: that use the rewrites of `stable` where no rollout was ever promoted.
    """
    latest, promoted = deployment.latest, deployment.promoted
    stable = promoted.plan.stages if promoted is not None else stable_stages
    killed = deployment.killed
    if latest is None or not latest.canary_ratio:
        # What is counted is of before the next rollout, by whose number it is found.
        before = (latest.number - latest.is_live) if latest else 0
        split = Split(salt, holdout_ratio)
        return Dealing(split, {"stable": stable, "canary": stable}, rollout=0, step=before, killed=killed)
    return Dealing(
        latest.split(salt, holdout_ratio),
        {"stable": stable, "canary": latest.plan.stages},
        rollout=latest.number,
        step=latest.last.step,
        killed=killed,
    )
