"""Checkpoints under those they were made from."""

from __future__ import annotations

from dataclasses import dataclass

from app.console.lineage import tree


@dataclass(frozen=True)
class One:
    key: str
    parent: str | None = None
    name: str = ""


def drawn(*checkpoints: One) -> list[str]:
    return [branch.trunk + branch.one.key for branch in tree(checkpoints)]


def test_a_line_of_weeks_stays_a_line() -> None:
    weeks = [One("0"), *(One(str(week), str(week - 1)) for week in range(1, 3000))]
    found = drawn(*weeks)
    assert found[:3] == ["● 0", "↳ 1", "↳ 2"]
    assert len(found) == 3000


def test_of_several_made_from_one_each_has_a_branch() -> None:
    assert drawn(One("a"), One("b", "a"), One("c", "a"), One("d", "b"), One("e", "b"), One("f", "c")) == [
        "● a",
        "├─ b",
        "│  ├─ d",
        "│  └─ e",
        "└─ c",
        "   ↳ f",
    ]


def test_a_parent_that_is_not_here_leaves_its_child_without_any() -> None:
    assert drawn(One("b", "gone"), One("c", "b")) == ["● b", "↳ c"]


def test_old_manifests_name_their_parent_by_its_id() -> None:
    assert drawn(One("b", "first"), One("a", name="first")) == ["● a", "↳ b"]


def test_a_ring_is_shown_all_the_same_each_of_it_once() -> None:
    found = drawn(One("a", "b"), One("b", "a"), One("c", "c"))
    assert sorted(line[-1] for line in found) == ["a", "b", "c"]
