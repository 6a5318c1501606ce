"""The guard: which completions may be called a rewrite of this query. Pure: texts in, a verdict out.

It is deliberately one-sided. A good rewrite lost costs a little gain; a number, a negation or a phrase lost
costs the user's trust. So wherever a rule is in doubt it drops, and the ranking stays the original one.

The rules, in the order in which they are asked; the first that fires names the drop:

`empty`              nothing visible is left, or no letter and no digit where the original has one.
`control_character`  a character of category C* or a line break: controls, bidirectional and zero-width
                     marks, surrogates, private use; U+FFFD, the trace of broken bytes; and control tokens of
                     the prompt. The joiners U+200C and U+200D may stand where the query or its context has
                     them (Persian, emoji).
`truncated`          the engine stopped at its token limit.
`too_long`           more characters than `Limits` allows.
`copy`               equal to the original after NFKC, case folding, dropping apostrophes, reading every other
                     punctuation as a space, and collapsing spaces. Another segmentation ("head phones",
                     "headphones") is a rewrite: to a lexical index it is another query.
`duplicate`          equal in the same sense to a rewrite kept before.
`repeated_tokens`    one token three times in a row, a letter five times in a row, or six tokens and more of
                     which less than half are distinct: how small models degenerate.
`wrong_script`       a letter of a script that neither query nor context uses. Latin may always stand beside
                     (brands, acronyms), but a query without Latin letters must keep one letter of its own
                     scripts. Han, Hiragana and Katakana count as one; a query without letters allows Latin.
`lost_number`        a number of the original is missing; each as often as it was written. "1,000" is 1000;
                     "3.5" is one number; a number word ("two") is not a number in either direction.
`lost_negation`      fewer negations than the original (English, and the unambiguous particles of some other
                     languages: see `_NEGATION`). Which word expresses it is free ("without", "no").
`lost_quote`         the words of a quoted phrase no longer stand side by side, in order, whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from app.contracts.reasons import Drop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from app.contracts.prompt import Context
    from app.engines.base import Finish

# Below this many characters the ratio says nothing: "rn" may well become a title of 60.
_RATIO_FLOOR_CHARS = 96
_MAX_EQUAL_TOKENS = 2
_MAX_EQUAL_LETTERS = 4
_DISTINCT_FROM_TOKENS = 6
_MIN_DISTINCT_RATIO = 0.5
_JOINERS = "\u200c\u200d"

_APOSTROPHES = re.compile("['`\u2018\u2019\u00b4]")
_NOT_WORD = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# An opening quote does not follow a word character: 24" is a size in inches.
_QUOTED = re.compile(r'(?<!\w)"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|「([^」]+)」')
# Read after case folding and without apostrophes. The search operator of exclusion ("shoes -nike") counts.
_NEGATION = re.compile(
    r"\b(?:not|no|nor|none|never|neither|without|w/o|except|excluding|excludes?|excluded|cannot|cant|wont"
    r"|(?:do|does|did|is|are|was|were|has|have|had|would|could|should|must|need)nt"
    r"|ohne|nicht|kein(?:e[mnrs]?)?|sans|senza|zonder|geen|niet|sem|não|sin|без|не)\b"
    r"|\bnon(?=[ -])|\bnon(?=\w{3})|-free\b|(?:(?<=\s)|^)-(?=\w)"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a rewrite may be.

    `max_chars` characters in any case; above 96 characters also at most `max_ratio` times the characters of
    query and context together.
    """

    max_chars: int = 256
    max_ratio: float = 8.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What the guard knows of the original; made once by `subject_of`, asked for each completion."""

    limits: Limits
    normal: str
    has_words: bool
    chars: int
    joiners: frozenset[str]
    scripts: frozenset[str]
    query_scripts: frozenset[str]
    numbers: Counter[str]
    negations: int
    quotes: tuple[str, ...]


def subject_of(original: str, context: Context, limits: Limits) -> Subject:
    """Read from query and context what every rewrite is held against."""
    beside = [*context.previous_queries]
    if context.last_item is not None:
        beside += [context.last_item.title, context.last_item.text]
    everything = "\n".join([original, *beside])
    query_scripts = scripts_of(original)
    return Subject(
        limits=limits,
        normal=normalised(original),
        has_words=_has_words(original),
        chars=len(everything),
        joiners=frozenset(_JOINERS) & frozenset(everything),
        scripts=scripts_of(everything) | {"LATIN"},
        query_scripts=query_scripts,
        numbers=_numbers(original),
        negations=_negations(original),
        quotes=tuple(_quotes(original)),
    )


def drop_of(  # noqa: C901, PLR0911 -- a list of rules reads best as one test and one return per rule
    subject: Subject, text: str, finish: Finish, kept: Collection[str] = ()
) -> Drop | None:
    """Why this completion is no rewrite, or None where it is one.

    `kept` holds the `normalised` forms of the rewrites kept so far.
    """
    if not text.strip() or (subject.has_words and not _has_words(text)):
        return Drop.EMPTY
    if _has_control_character(text, subject.joiners):
        return Drop.CONTROL_CHARACTER
    if finish != "stop":
        return Drop.TRUNCATED
    if _is_too_long(text, subject):
        return Drop.TOO_LONG
    normal = normalised(text)
    if normal == subject.normal:
        return Drop.COPY
    if normal in kept:
        return Drop.DUPLICATE
    if _repeats(normal):
        return Drop.REPEATED_TOKENS
    if _is_wrong_script(text, subject):
        return Drop.WRONG_SCRIPT
    if subject.numbers and not subject.numbers <= _numbers(text):
        return Drop.LOST_NUMBER
    if subject.negations > _negations(text):
        return Drop.LOST_NEGATION
    padded = f" {normal} "
    if any(f" {quote} " not in padded for quote in subject.quotes):
        return Drop.LOST_QUOTE
    return None


def normalised(text: str) -> str:
    """The form in which copies and duplicates are equal; never empty unless `text` is blank."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = _NOT_WORD.sub(" ", _APOSTROPHES.sub("", folded)).strip()
    # Marks are no word characters to `re`, and a query may be all symbols ("+++"): those compare as they are.
    return words or " ".join(folded.split())


def scripts_of(text: str) -> frozenset[str]:
    """The scripts of the letters in `text`, by Unicode name ("LATIN", "CYRILLIC", "HAN")."""
    letters = {character for character in unicodedata.normalize("NFKC", text) if character.isalpha()}
    return frozenset(script for letter in letters if (script := _script(letter)))


@lru_cache(maxsize=4096)
def _script(letter: str) -> str | None:
    name = unicodedata.name(letter, "").split(" ", 1)[0].split("-", 1)[0]
    if name in {"CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO"}:
        return "HAN"
    # Modifier letters belong to no script of their own.
    return None if name in {"MODIFIER", ""} else name


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _has_control_character(text: str, joiners: frozenset[str]) -> bool:
    if "<|" in text:
        return True
    if text.isascii():
        return not text.isprintable()
    return any(
        character == "\ufffd"
        or unicodedata.category(character)[0] == "C"
        or unicodedata.category(character) in {"Zl", "Zp"}
        for character in text
        if character not in joiners
    )


def _is_too_long(text: str, subject: Subject) -> bool:
    length = len(text)
    if length > subject.limits.max_chars:
        return True
    return length > max(_RATIO_FLOOR_CHARS, subject.limits.max_ratio * subject.chars)


def _repeats(normal: str) -> bool:
    tokens = normal.split()
    if _longest_run(tokens) > _MAX_EQUAL_TOKENS:
        return True
    if _longest_run(character if character.isalpha() else None for character in normal) > _MAX_EQUAL_LETTERS:
        return True
    return len(tokens) >= _DISTINCT_FROM_TOKENS and len(set(tokens)) / len(tokens) < _MIN_DISTINCT_RATIO


def _longest_run(values: Iterable[str | None]) -> int:
    return max((sum(1 for _ in run) for value, run in groupby(values) if value is not None), default=0)


def _is_wrong_script(text: str, subject: Subject) -> bool:
    scripts = scripts_of(text)
    if not scripts <= subject.scripts:
        return True
    own = subject.query_scripts
    return bool(own) and "LATIN" not in own and not scripts & own


def _numbers(text: str) -> Counter[str]:
    folded = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text))
    return Counter(
        "".join(c if c == "." else str(unicodedata.digit(c)) for c in number)
        for number in _NUMBER.findall(folded)
    )


def _negations(text: str) -> int:
    folded = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    return sum(1 for _ in _NEGATION.finditer(folded))


def _quotes(text: str) -> Iterable[str]:
    for match in _QUOTED.finditer(text):
        phrase = normalised(next(group for group in match.groups() if group is not None))
        if phrase:
            yield phrase
