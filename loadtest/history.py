"""Whether a recorded history of requests and swaps is one that a correct service could have produced. Pure.

Every request is checked, none is sampled. The rules:

- it was answered: status 200, with the query unchanged, and no reason that means a failure;
- what it says is what the checkpoint it names says, rewrite for rewrite (`expected`);
- the checkpoint it names served at some moment between its start and its end.

The last rule is what makes stale answers visible: once a swap has been reported done, no request that starts
later may be answered by what served before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FAILURES = frozenset({"engine_error", "engine_unavailable", "deadline"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its client saw it; times in seconds of one clock. `said` is None where none came."""

    start_s: float
    end_s: float
    query: str
    status: int
    original: str | None
    weights_digest: str | None
    reason: str | None
    said: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap to `weights_digest`: asked for at `start_s`, reported done at `end_s`."""

    start_s: float
    end_s: float
    weights_digest: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A request that no correct service could have answered so, and the rule it breaks."""

    request: Request
    rule: str


def violations(
    requests: Sequence[Request],
    swaps: Sequence[Swap],
    *,
    first_digest: str,
    expected: Mapping[tuple[str, str], tuple[str, ...]],
) -> Iterator[Violation]:
    """Yield every violation, in the order of `requests`.

    Args:
        requests: what the clients recorded.
        swaps: those that succeeded, one after the other, in order.
        first_digest: what served before the first swap.
        expected: (digest, query) to the rewrites that this checkpoint gives for this query.
    """
    for request in requests:
        for rule in _broken(request, swaps, first_digest, expected):
            yield Violation(request, rule)


def _broken(
    request: Request,
    swaps: Sequence[Swap],
    first_digest: str,
    expected: Mapping[tuple[str, str], tuple[str, ...]],
) -> Iterator[str]:
    if request.status != 200 or request.said is None or request.weights_digest is None:  # noqa: PLR2004
        yield f"failed with status {request.status}"
        return
    if request.original != request.query:
        yield "the original was changed"
    if request.reason in FAILURES:
        yield f"failed with reason {request.reason}"
    elif request.said != expected.get((request.weights_digest, request.query)):
        yield "the text is not that of the checkpoint it names"
    if request.weights_digest not in _serving(request, swaps, first_digest):
        yield "the checkpoint it names did not serve then"


def _serving(request: Request, swaps: Sequence[Swap], first_digest: str) -> set[str]:
    """The digests that may have served at some moment of the request."""
    done = [swap.weights_digest for swap in swaps if swap.end_s <= request.start_s]
    during = [
        swap.weights_digest
        for swap in swaps
        if swap.end_s > request.start_s and swap.start_s <= request.end_s
    ]
    return {done[-1] if done else first_digest, *during}
