from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.contracts.prompt import (
    CONTROL_TOKENS,
    MAX_PREVIOUS_QUERIES,
    QUERY,
    REWRITE,
    Context,
    Item,
    clean,
    render,
)

texts = st.text(alphabet=st.sampled_from("ab <|>queryend"), max_size=40) | st.sampled_from(CONTROL_TOKENS)


def test_a_query_alone() -> None:
    assert render("  rn \t icu ") == "<|query|>rn icu<|rewrite|>"


def test_context_comes_first_newest_queries_kept() -> None:
    context = Context(Item("Nike shoe", "blue"), tuple("abcde"))
    assert render("in red", context) == (
        "<|item|>Nike shoe<|text|>blue<|prev|>c<|prev|>d<|prev|>e<|query|>in red<|rewrite|>"
    )


def test_an_item_without_text_has_no_text_part() -> None:
    assert "<|text|>" not in render("x", Context(Item("t")))


@given(query=texts, title=texts, previous=st.lists(texts, max_size=5))
def test_user_text_never_makes_a_control_token(query: str, title: str, previous: list[str]) -> None:
    prompt = render(query, Context(Item(title), tuple(previous)))
    kept = min(len(previous), MAX_PREVIOUS_QUERIES)
    assert sum(prompt.count(token) for token in CONTROL_TOKENS) == 3 + kept
    assert prompt.endswith(REWRITE)
    assert prompt.count(QUERY) == 1


@given(text=st.text(max_size=80), limit=st.integers(1, 60))
def test_clean_is_bounded_and_stays_as_it_is_when_done_again(text: str, limit: int) -> None:
    once = clean(text, limit)
    assert len(once) <= limit
    assert clean(once, limit) == once


def test_an_empty_context_is_false() -> None:
    assert not Context()
    assert Context(previous_queries=("a",))
    assert Context(Item("a"))
