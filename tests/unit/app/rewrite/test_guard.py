# ruff: noqa: RUF001 -- other scripts are what is tested
from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.prompt import NO_CONTEXT, Context, Item
from app.contracts.reasons import Drop
from app.rewrite.guard import Limits, drop_of, normalised, scripts_of, subject_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from app.engines.base import Finish


DEFAULT_LIMITS = Limits()


def verdict(
    original: str,
    text: str,
    *,
    context: Context = NO_CONTEXT,
    finish: Finish = "stop",
    kept: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Drop | None:
    return drop_of(subject_of(original, context, limits), text, finish, kept)


CASES = [
    ("rn icu nights", "registered nurse intensive care night shift", None),
    ("in blue", "acme running shoes blue", None),
    ("a", "", Drop.EMPTY),
    ("a", " \t\n", Drop.EMPTY),
    ("a", "?!", Drop.EMPTY),
    ("?", "?!", None),
    ("a", "b\x00c", Drop.CONTROL_CHARACTER),
    ("a", "b\ufffdc", Drop.CONTROL_CHARACTER),
    ("a", "b\nc", Drop.CONTROL_CHARACTER),
    ("a", "b\u200bc", Drop.CONTROL_CHARACTER),
    ("a", "b\u202ec", Drop.CONTROL_CHARACTER),
    ("a", "b\u2028c", Drop.CONTROL_CHARACTER),
    ("a", "b\ud800c", Drop.CONTROL_CHARACTER),
    ("a", "b<|end|>", Drop.CONTROL_CHARACTER),
    ("می\u200cخواهم", "من می\u200cخواهم", None),
    ("rn icu", "RN  ICU", Drop.COPY),
    ("rn-icu!", "rn icu", Drop.COPY),
    ("ｒｎ", "rn", Drop.COPY),
    ("women's shoes", "womens shoes", Drop.COPY),
    ("straße", "STRASSE", Drop.COPY),
    ("head phones", "headphones", None),
    ("+++", "+++", Drop.COPY),
    ("+++", "++", None),
    ("nurse", "nurse nurse nurse", Drop.REPEATED_TOKENS),
    ("nurse", "nurse nurse", None),
    ("nurse", "a b a b a b a b", Drop.REPEATED_TOKENS),
    ("nurse", "nurseeeee", Drop.REPEATED_TOKENS),
    ("10000000", "10000000 usd", None),
    ("nurse", "медсестра", Drop.WRONG_SCRIPT),
    ("медсестра", "nurse", Drop.WRONG_SCRIPT),
    ("медсестра", "медсестра icu", None),
    ("кроссовки найк", "кроссовки nike", None),
    ("123", "123 shoes", None),
    ("123", "123 обувь", Drop.WRONG_SCRIPT),
    ("東京 ホテル", "とうきょう ホテル", None),
    ("東京", "서울", Drop.WRONG_SCRIPT),
    ("iphone 14 case", "iphone case", Drop.LOST_NUMBER),
    ("iphone14 case", "iphone 14 case", None),
    ("2 x 2 tile", "2 tile", Drop.LOST_NUMBER),
    ("1,000 pieces", "puzzle 1000 pieces", None),
    ("3.5 mm jack", "35 mm jack", Drop.LOST_NUMBER),
    ("size ４２", "shoes size 42", None),
    ("m² 20", "square metre 20", Drop.LOST_NUMBER),
    ("2 nurses", "two nurses", Drop.LOST_NUMBER),
    ("size ٤٢", "shoes size 42", None),
    ("jobs without degree", "jobs with degree", Drop.LOST_NEGATION),
    ("jobs without degree", "no degree jobs", None),
    ("not remote", "remote jobs", Drop.LOST_NEGATION),
    ("don't travel", "travel jobs", Drop.LOST_NEGATION),
    ("don’t travel", "jobs that do not travel", None),
    ("shoes -nike", "shoes nike brand", Drop.LOST_NEGATION),
    ("non-stick pan", "frying pan", Drop.LOST_NEGATION),
    ("non stick pan", "nonstick frying pan", None),
    ("sugar-free gum", "gum sugar", Drop.LOST_NEGATION),
    ("sugar-free gum", "gum without sugar", None),
    ("ohne erfahrung", "stellen erfahrung", Drop.LOST_NEGATION),
    ("notebook", "laptop computer", None),
    ("wireless mouse", "bluetooth mouse", None),
    ('"machine learning" engineer', "ml engineer", Drop.LOST_QUOTE),
    ('"machine learning" engineer', "Senior Machine  Learning Engineer", None),
    ("“machine learning” x", "machine x learning", Drop.LOST_QUOTE),
    ('"machine learn" x', "machine learning x", Drop.LOST_QUOTE),
    ('24" monitor 27" stand', "24 inch monitor 27 inch stand", None),
]


@pytest.mark.parametrize(("original", "text", "expected"), CASES)
def test_rules(original: str, text: str, expected: Drop | None) -> None:
    assert verdict(original, text) == expected


def test_truncated_and_duplicate() -> None:
    assert verdict("rn", "registered nurse", finish="length") is Drop.TRUNCATED
    assert verdict("rn", "Registered-Nurse", kept={normalised("registered nurse")}) is Drop.DUPLICATE


def words(chars: int) -> str:
    """Distinct words, `chars` characters of them."""
    return " ".join(f"{a}{b}" for a in "bcdfghjk" for b in "lmnpqrstvwxyz")[:chars]


def test_too_long_on_both_sides_of_each_limit() -> None:
    assert verdict("rn", words(96)) is None
    assert verdict("rn", words(97)) is Drop.TOO_LONG
    query = "x" + words(49)
    assert verdict(query, words(256)) is None
    assert verdict(query, words(257)) is Drop.TOO_LONG
    assert verdict(query, words(257), limits=Limits(max_chars=257)) is None
    assert verdict(query, words(110), limits=Limits(max_ratio=2.2)) is None
    assert verdict(query, words(111), limits=Limits(max_ratio=2.2)) is Drop.TOO_LONG


def test_the_context_lengthens_what_is_allowed() -> None:
    assert verdict("rn", words(120)) is Drop.TOO_LONG
    assert verdict("rn", words(120), context=Context(last_item=Item("t" * 20))) is None


def test_a_script_of_the_context_is_allowed() -> None:
    context = Context(last_item=Item("кроссовки"))
    assert verdict("blue", "blue кроссовки", context=context) is None
    assert verdict("blue", "blue кроссовки") is Drop.WRONG_SCRIPT


TEXT = st.text(max_size=60) | st.text(alphabet="abc 12.,\"'-no", max_size=40)


@given(original=TEXT, text=TEXT, finish=st.sampled_from(["stop", "length"]))
def test_what_passes_keeps_every_promise(original: str, text: str, finish: Finish) -> None:
    if verdict(original, text, finish=finish) is not None:
        return
    assert finish == "stop"
    assert text.strip()
    assert len(text) <= 256
    assert normalised(text) != normalised(original)
    assert not any(unicodedata.category(c) == "Cc" for c in text)
    digits = [
        Counter(c for c in unicodedata.normalize("NFKC", t) if c.isdecimal() and c.isascii())
        for t in (original, text)
    ]
    assert digits[0] <= digits[1]
    assert scripts_of(text) <= scripts_of(original) | {"LATIN"}


@given(original=TEXT)
def test_the_query_itself_is_never_its_rewrite(original: str) -> None:
    assert verdict(original, original) is not None


@given(text=TEXT)
def test_normalising_is_idempotent_and_blind_to_spaces_around(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
    assert normalised(f"  {text} ") == normalised(text)


@given(
    original=st.text(alphabet="abcdefgh ", min_size=1, max_size=20).filter(str.strip),
    number=st.integers(0, 10**9),
)
def test_a_lost_number_is_always_seen(original: str, number: int) -> None:
    rewrite = f"{original} zz"
    assert verdict(f"{original} {number}", rewrite) in {Drop.LOST_NUMBER, Drop.REPEATED_TOKENS}
