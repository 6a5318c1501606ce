"""A small part of `make fuzz`, of a fixed seed, and whether it would notice."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from campaign import State, campaign, page, wrong_with
from mutations import ODD_BYTES, Made, spoil
from parsers import SEEDS, targets

REQUESTS, CHANGES = 2000, 1500
TARGETS = targets()
DOCUMENTED = {"POST /v1/rewrite": {200, 422}}


def test_thousands_of_requests_are_answered_as_documented() -> None:
    state = campaign(State(seed=1), REQUESTS)
    assert state.findings == []
    assert state.sent == sum(state.kinds.values()) == REQUESTS
    assert {"200", "400", "401", "404", "405", "409", "422"} <= set(state.statuses), "too narrow"
    assert "Findings: 0" in page(state)


@pytest.mark.parametrize("name", SEEDS)
def test_parsers_raise_what_they_say_and_nothing_else(name: str) -> None:
    rng = random.Random(name)
    data = SEEDS[name]
    TARGETS[name](data)
    for turn in range(CHANGES):
        data = spoil(SEEDS[name] if turn % 8 == 0 else data, rng, ODD_BYTES)[:20_000]
        TARGETS[name](data)


def rewrite(body: dict[str, object] | None = None) -> Made:
    return Made(b"", "POST", "/v1/rewrite", "json", json.dumps(body or {"query": "a"}).encode())


def told(**answer: object) -> bytes:
    return json.dumps({"original": "a", "rewrites": [], "degraded": True, **answer}).encode()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, told(), None),
        (422, b'{"error": "a", "detail": "b"}', None),
        (500, b'{"error": "a", "detail": "b"}', "status 500"),
        (201, told(), "status 201"),
        (422, b'{"detail": [{"loc": []}]}', "not the one error shape"),
        (200, told(original="A"), "another original"),
        (200, told(degraded=False), "neither rewritten nor degraded"),
    ],
)
def test_what_is_wrong_is_noticed(status: int, body: bytes, why: str | None) -> None:
    assert wrong_with(rewrite(), status, body, DOCUMENTED) == why
