"""From the fields of the form to a request, and from signals to two rankings."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGALRM, alarm
from signal import signal as handle

import pytest

from app.console.examples import EXAMPLES
from app.console.trial import fields_of, rankings, reach, request_of
from app.errors import BadRequestError
from app.signals.records import DocumentSignal


def test_lines_are_candidates_with_a_score_or_without() -> None:
    lines = "0.61 | Nike Lunar\n\n 1e-3\tTwo words\nPlain 0.5 text\n-2|Minus\n.5 |a | b\r"
    asked = request_of(fields_of({"query": "x", "candidates": lines}))
    found = [(one.id, one.text, one.base_score and one.base_score.finerank) for one in asked.candidates]
    assert found == [
        ("1", "Nike Lunar", 0.61),
        ("2", "Two words", 0.001),
        ("3", "Plain 0.5 text", None),
        ("4", "Minus", -2.0),
        ("5", "a | b", 0.5),
    ]
    assert asked.stages == ["recall", "finerank"]


@pytest.fixture
def patience() -> Iterator[None]:
    """A minute, for what would otherwise go on for half an hour: `re` lets itself be interrupted."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = handle(SIGALRM, give_up)
    alarm(60)
    yield
    alarm(0)
    handle(SIGALRM, before)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("line", ["1" * 250_000, "." + "1" * 250_000, "1" * 250_000 + "e", "1 " * 125_000])
def test_a_long_line_is_read_once(line: str) -> None:
    """By a pattern that could read it in two ways its time was the square of its length."""
    with pytest.raises(BadRequestError, match="text"):
        request_of(fields_of({"query": "rn", "candidates": line}))


def test_scores_are_of_the_stage_that_was_chosen() -> None:
    (one,) = request_of(fields_of({"query": "x", "candidates": "2 | a", "stage": "rawrank"})).candidates
    assert one.base_score is not None
    assert (one.base_score.rawrank, one.base_score.finerank) == (2.0, None)


def test_the_context_is_what_was_typed() -> None:
    asked = request_of(fields_of({"query": "in blue", "title": "Shoes", "previous": "one\n \ntwo"}))
    assert asked.context is not None
    assert asked.context.last_item is not None
    assert (asked.context.last_item.title, asked.context.previous_queries) == ("Shoes", ["one", "two"])
    assert request_of(fields_of({"query": "in blue"})).context is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_can_be_asked(name: str) -> None:
    asked = request_of(fields_of(EXAMPLES[name]))
    assert len(asked.candidates) >= 3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"query": " "}, "query: must have a visible character"),
        ({"query": "x", "num_rewrites": "five"}, "num_rewrites: must be a whole number"),
        ({"query": "x", "num_rewrites": "9"}, "num_rewrites: Input should be less than or equal to 4"),
        ({"query": "x", "stage": "recall"}, "stage: must be one of finerank, rawrank"),
        ({"query": "x", "text": "without a title"}, "context.last_item.title"),
        ({"query": "x", "candidates": "1e999 | a"}, "candidates.0.base_score.finerank"),
        ({"query": "x", "candidates": "\n".join("a" * 1001)}, "candidates: List should have at most 1000"),
    ],
)
def test_what_is_wrong_names_the_field(fields: dict[str, str], says: str) -> None:
    with pytest.raises(BadRequestError) as error:
        request_of(fields_of(fields))
    assert says in str(error.value)


def signal(name: str, base: float | None, phi: float) -> DocumentSignal:
    return DocumentSignal(name, base, 0.5, phi, None if base is None else base * phi)


def places(rows: list[object]) -> list[tuple[str, int]]:
    return [(row.text, row.moved) for row in rows]  # type: ignore[attr-defined]


def test_a_factor_moves_a_document_and_others_make_room() -> None:
    documents = [signal("a", 3.0, 1.0), signal("b", 2.0, 1.0), signal("c", 1.0, 4.0), signal("d", None, 9.0)]
    before, after = rankings(documents, {name: name for name in "abcd"})
    assert places(before) == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]  # type: ignore[arg-type]
    assert places(after) == [("c", 2), ("a", -1), ("b", -1), ("d", 0)]  # type: ignore[arg-type]
    assert [row.score for row in after] == [4.0, 3.0, 2.0, None]


def test_where_every_factor_is_one_both_rankings_are_the_same_ties_included() -> None:
    documents = [signal("a", 1.0, 1.0), signal("b", 2.0, 1.0), signal("c", 1.0, 1.0), signal("d", None, 1.0)]
    before, after = rankings(documents, {name: name for name in "abcd"})
    assert places(before) == places(after) == [("b", 0), ("a", 0), ("c", 0), ("d", 0)]  # type: ignore[arg-type]
    assert [row.score for row in before] == [row.score for row in after]


@pytest.mark.parametrize(
    ("phi", "most", "expected"),
    [(1, 100, 0), (100, 100, 1), (0.01, 100, -1), (10, 100, 0.5), (1, 1, 0), (5, 1, 0)],
)
def test_the_reach_of_a_factor_is_by_its_logarithm(phi: float, most: float, expected: float) -> None:
    assert reach(phi, most) == pytest.approx(expected)
