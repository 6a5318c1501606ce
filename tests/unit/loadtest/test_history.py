from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.history import Request, Swap, violations

A, B = "a" * 64, "b" * 64
EXPECTED = {(A, "q"): ("by a",), (B, "q"): ("by b",)}
GOOD = Request(0.0, 1.0, "q", 200, "q", A, None, ("by a",))
SWAPS = [Swap(10.0, 12.0, B), Swap(20.0, 21.0, A)]


def rules(request: Request) -> list[str]:
    return [found.rule for found in violations([request], SWAPS, first_digest=A, expected=EXPECTED)]


def at(start_s: float, end_s: float, digest: str) -> Request:
    said = EXPECTED[digest, "q"]
    return replace(GOOD, start_s=start_s, end_s=end_s, weights_digest=digest, said=said)


def test_a_good_answer_breaks_no_rule() -> None:
    assert rules(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"status": 500, "said": None}, "status 500"),
        ({"status": 0, "said": None, "weights_digest": None}, "status 0"),
        ({"original": "Q"}, "original was changed"),
        ({"reason": "engine_unavailable", "said": ()}, "reason engine_unavailable"),
        ({"reason": "engine_error", "said": ()}, "reason engine_error"),
        ({"reason": "deadline", "said": ()}, "reason deadline"),
        ({"said": ("by b",)}, "not that of the checkpoint"),
        ({"said": ("by a", "by b")}, "not that of the checkpoint"),
        ({"said": ()}, "not that of the checkpoint"),
        ({"weights_digest": B}, "not that of the checkpoint"),
        ({"weights_digest": "c" * 64}, "not that of the checkpoint"),
        ({"query": "other", "original": "other"}, "not that of the checkpoint"),
    ],
)
def test_each_planted_fault_is_found(changes: dict[str, object], rule: str) -> None:
    assert rule in " / ".join(rules(replace(GOOD, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start_s", "end_s", "digest", "ok"),
    [
        (8.0, 9.0, A, True),
        (8.0, 9.0, B, False),  # before its swap was even asked for
        (8.0, 10.5, B, True),
        (11.0, 11.5, A, True),  # while the swap is under way either may answer
        (11.0, 11.5, B, True),
        (11.0, 15.0, A, True),  # began before the swap was reported done
        (12.0, 12.1, A, False),  # began after: stale
        (12.0, 12.1, B, True),
        (22.0, 23.0, B, False),
        (22.0, 23.0, A, True),
        (8.0, 23.0, B, True),  # served within it
    ],
)
def test_an_answer_must_come_from_what_served_at_its_time(
    start_s: float, end_s: float, digest: str, ok: object
) -> None:
    assert (rules(at(start_s, end_s, digest)) == []) == ok


@given(st.floats(0, 30), st.floats(0, 5), st.sampled_from([A, B]))
def test_it_agrees_with_a_timeline_walked_in_small_steps(start: float, length: float, digest: str) -> None:
    end = start + length

    def may_serve(moment: float) -> set[str]:
        serving, found = A, {A}
        for swap in SWAPS:
            if moment >= swap.start_s:
                found = {serving, swap.weights_digest} if moment < swap.end_s else {swap.weights_digest}
                serving = swap.weights_digest
        return found

    edges = [moment for swap in SWAPS for moment in (swap.start_s, swap.end_s) if start <= moment <= end]
    served = set().union(*(may_serve(moment) for moment in [start, *edges, end]))
    assert (rules(at(start, end, digest)) == []) == (digest in served)
