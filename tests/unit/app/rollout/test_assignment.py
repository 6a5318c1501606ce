"""Who gets what: uniform, for good, and nothing carried over from one rollout to the next."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from app.rollout.assignment import BUCKETS, Split, bucket_of, share

CLIENTS = [f"client-{number}" for number in range(200_000)]
LEAST_P = 1e-4
"""The draws are fixed, so this is no matter of luck from run to run."""
RATIOS = (0.01, 0.05, 0.25, 0.5, 1.0)


@pytest.mark.parametrize("salt", ["", "search", "搜索"])
def test_clients_are_spread_evenly_over_buckets(salt: str) -> None:
    counts = np.bincount([bucket_of(client, salt) for client in CLIENTS], minlength=BUCKETS)
    assert counts.size == BUCKETS
    assert chisquare(counts).pvalue > LEAST_P


@pytest.mark.parametrize("ratio", [0.0, 0.0001, 0.01, 0.333, 1.0])
def test_a_share_of_buckets_is_exact(ratio: float) -> None:
    split = Split("search", holdout_ratio=ratio, rollout_salt="r1", canary_ratio=ratio)
    dealt = [split.arm_of(bucket) for bucket in range(BUCKETS)]
    assert sum(one.variant == "canary" for one in dealt) == share(ratio)
    assert sum(one.arm == "holdout" for one in dealt) == share(ratio)


def test_clients_are_dealt_in_the_shares_of_the_buckets() -> None:
    split = Split("search", holdout_ratio=0.02, rollout_salt="r1", canary_ratio=0.25)
    counts = Counter((one.arm, one.variant) for one in map(split.assign, CLIENTS))
    groups = Counter((one.arm, one.variant) for one in (split.arm_of(bucket) for bucket in range(BUCKETS)))
    expected = [len(CLIENTS) * groups[group] / BUCKETS for group in groups]
    assert chisquare([counts[group] for group in groups], expected).pvalue > LEAST_P


def test_whoever_has_the_canary_keeps_it_while_it_grows() -> None:
    canaries = [
        {
            bucket
            for bucket in range(BUCKETS)
            if Split("search", rollout_salt="r1", canary_ratio=ratio).arm_of(bucket).arm == "canary"
        }
        for ratio in RATIOS
    ]
    assert all(smaller < larger for smaller, larger in pairwise(canaries))


def test_the_holdout_is_the_same_in_every_rollout() -> None:
    def held(salt: str, ratio: float) -> set[int]:
        split = Split("search", holdout_ratio=0.05, rollout_salt=salt, canary_ratio=ratio)
        return {bucket for bucket in range(BUCKETS) if split.arm_of(bucket).arm == "holdout"}

    assert held("", 0.0) == held("r1", 0.01) == held("r2", 1.0)


@pytest.mark.parametrize("other", ["r2", "r1 ", "R1", "r11"])
def test_a_rollout_says_nothing_of_the_next(other: str) -> None:
    """No carry-over: the canary of one is dealt out evenly by the other."""
    one, two = (Split("search", rollout_salt=salt, canary_ratio=0.3) for salt in ("r1", other))
    table = np.zeros((2, 2))
    for bucket in range(BUCKETS):
        table[one.arm_of(bucket).arm == "canary", two.arm_of(bucket).arm == "canary"] += 1
    assert chi2_contingency(table).pvalue > LEAST_P


def test_the_holdout_says_nothing_of_the_variant() -> None:
    split = Split("search", holdout_ratio=0.3, rollout_salt="r1", canary_ratio=0.3)
    table = np.zeros((2, 2))
    for one in (split.arm_of(bucket) for bucket in range(BUCKETS)):
        table[one.arm == "holdout", one.variant == "canary"] += 1
    assert chi2_contingency(table).pvalue > LEAST_P
    assert table[1, 1] > 0  # the holdout has clients for whom the canary writes, unseen


def test_the_rollout_and_the_deployment_may_have_the_same_salt() -> None:
    split = Split("same", holdout_ratio=0.3, rollout_salt="same", canary_ratio=0.3)
    groups = {(one.arm, one.variant) for one in (split.arm_of(bucket) for bucket in range(BUCKETS))}
    assert len(groups) == 4


def test_clients_are_where_they_were_in_the_version_before() -> None:
    """A release that moves clients would break every rollout under way, and the holdout for good."""
    split = Split("search", holdout_ratio=0.1, rollout_salt="r1", canary_ratio=0.5)
    assert [bucket_of(client, "search") for client in ("a", "b", "ünï")] == [9081, 3682, 8322]
    arms = [split.arm_of(bucket).arm for bucket in range(8)]
    assert [bucket for bucket, arm in enumerate(arms) if arm == "canary"] == [3, 7]


@given(st.text(st.characters()))
def test_any_text_is_a_client(subject: str) -> None:
    """Half a surrogate pair too."""
    assert 0 <= bucket_of(subject, "search") < BUCKETS


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["holdout_ratio", "canary_ratio"])
def test_a_ratio_is_one(name: str, ratio: float) -> None:
    with pytest.raises(ValueError, match=name):
        Split("search", **{name: ratio})  # type: ignore[arg-type]
