"""Which checkpoint was made from which, as a tree in lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar


class _Descends(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def parent(self) -> str | None: ...


C = TypeVar("C", bound=_Descends)


class Branch(Generic[C]):
    """A checkpoint at its place: `trunk` is what is drawn before it, `depth` how many made it."""

    def __init__(self, one: C, trunk: str, depth: int) -> None:
        self.one, self.trunk, self.depth = one, trunk, depth


def tree(checkpoints: Sequence[C]) -> list[Branch[C]]:
    """Return all, each after the one it was made from, otherwise in their order.

    A parent is named by its address, in old manifests by its id. One that is not here, or that descends from
    its own child, leaves its child without any.
    """
    by_name = {one.name: one.key for one in reversed(checkpoints)} | {one.key: one.key for one in checkpoints}
    children: dict[str | None, list[C]] = {}
    for one in checkpoints:
        parent = by_name.get(one.parent) if one.parent else None
        children.setdefault(None if parent == one.key else parent, []).append(one)
    placed: set[str] = set()

    def grown(one: C, sign: str, stem: str, depth: int) -> Iterator[Branch[C]]:
        """Only where several were made from one it moves to the right: a line of weeks stays a line."""
        young = [one]
        while len(young) == 1:
            (one,) = young
            placed.add(one.key)
            yield Branch(one, stem + sign, depth)
            young = [child for child in children.get(one.key, ()) if child.key not in placed]
            sign, depth = "↳ ", depth + 1
        for child in young:
            if child.key not in placed:
                under = "   " if child is young[-1] else "│  "
                yield from _joined(grown(child, "", stem + under, depth), stem, is_last=child is young[-1])

    found = [branch for root in children.get(None, ()) for branch in grown(root, "● ", "", 0)]
    for one in checkpoints:  # what is in a ring
        if one.key not in placed:
            found += grown(one, "● ", "", 0)
    return found


def _joined(branches: Iterator[Branch[C]], stem: str, *, is_last: bool) -> Iterator[Branch[C]]:
    """A branch whose first line is joined to the trunk."""
    for place, branch in enumerate(branches):
        yield branch if place else Branch(branch.one, stem + ("└─ " if is_last else "├─ "), branch.depth)
