"""Which arm a client belongs to: a function of its id, of two salts and two ratios. Pure.

    client  ->  one of BUCKETS          by the deployment's salt: for good
    bucket  ->  holdout or not          by the deployment's salt: for good
    bucket  ->  stable or canary        by the rollout's salt: anew in each rollout

Buckets are dealt, not clients: each salt puts them into an order of its own, and the canary is the first part
of it. So a canary that grows keeps those it has, its share is exact, and a bucket's past is known before the
rollout that it is in. Rollouts are independent of each other and of the holdout: what one has done to its
clients, the next deals out evenly (Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments, 2020).

Clients of the holdout belong to a variant too. They are shown the original, but which checkpoint would have
written for them is known, and so is what they are to be compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Literal

BUCKETS = 10_000
"""1 % of them are 100, enough for a variance over buckets."""

Arm = Literal["stable", "canary", "holdout"]
Variant = Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Split:
    """How traffic is dealt.

    Args:
        salt: of the deployment, the same in all its replicas and for good.
        holdout_ratio: of the buckets, who always see the original.
        rollout_salt: of the rollout; "" where there is none.
        canary_ratio: of the buckets, in the holdout or not; 0 where there is none.
    """

    salt: str
    holdout_ratio: float = 0.0
    rollout_salt: str = ""
    canary_ratio: float = 0.0

    def __post_init__(self) -> None:
        for name, ratio in (("holdout_ratio", self.holdout_ratio), ("canary_ratio", self.canary_ratio)):
            if not 0.0 <= ratio <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], not {ratio!r}")

    def assign(self, subject: str) -> Assignment:
        """Return the arm of a client_id, or of the query_id where there is none."""
        return self.arm_of(bucket_of(subject, self.salt))

    def arm_of(self, bucket: int) -> Assignment:
        """Return the arm of a bucket."""
        canary = _is_among_first(share(self.canary_ratio), f"rollout {self.rollout_salt}", bucket)
        held = _is_among_first(share(self.holdout_ratio), f"holdout {self.salt}", bucket)
        variant: Variant = "canary" if canary else "stable"
        return Assignment(bucket, "holdout" if held else variant, variant)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a client is.

    Args:
        bucket: in [0, BUCKETS).
        arm: what it is shown.
        variant: whose checkpoint writes for it, shown or not.
    """

    bucket: int
    arm: Arm
    variant: Variant


def bucket_of(subject: str, salt: str) -> int:
    """Return the bucket of a client, uniform over [0, BUCKETS)."""
    digest = blake2b(
        subject.encode("utf-8", "surrogatepass"), key=sha256(salt.encode()).digest(), digest_size=8
    ).digest()
    return int.from_bytes(digest) % BUCKETS


def share(ratio: float) -> int:
    """Return how many buckets a ratio is."""
    return round(ratio * BUCKETS)


def _is_among_first(count: int, salt: str, bucket: int) -> bool:
    """Whether a bucket is among so many of a salt's order, which is not made where nobody is."""
    return count > 0 and _places(salt)[bucket] < count


@lru_cache(maxsize=64)
def _places(salt: str) -> tuple[int, ...]:
    """The place of each bucket in a salt's order."""
    key = sha256(salt.encode()).digest()
    order = sorted(range(BUCKETS), key=lambda bucket: blake2b(b"%d" % bucket, key=key).digest())
    places = [0] * BUCKETS
    for place, bucket in enumerate(order):
        places[bucket] = place
    return tuple(places)
