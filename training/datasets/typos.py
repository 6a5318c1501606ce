"""Seeded typos: exactly one keyboard slip per text, for training and for the typo split of products/dev.

A slip is a deletion, an insertion, a substitution by a neighbouring key, or a transposition of two letters
(the four kinds of Damerau, CACM 1964), each equally likely. It falls in one word, a run of ASCII letters:
words of four letters or more are preferred, since people notice slips in short ones; digits are never
touched, because they are model numbers and sizes. The first letter of a word stays, as people seldom miss it
(Yannakoudakis and Fawthrop, IP&M 1983).
"""

from __future__ import annotations

import re
from random import Random

from training.datasets.beir import Query

_WORD = re.compile(r"[A-Za-z]+")
_LONG = 4
_SHORTEST = 2

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Map each letter to the keys that touch it on a QWERTY keyboard (rows are shifted by half a key)."""
    touching: dict[str, set[str]] = {key: set() for row in _ROWS for key in row}
    for number, row in enumerate(_ROWS):
        below = _ROWS[number + 1] if number + 1 < len(_ROWS) else ""
        for place, key in enumerate(row):
            near = row[place + 1 : place + 2] + below[max(place - 1, 0) : place + 1]
            for other in near:
                touching[key].add(other)
                touching[other].add(key)
    return {key: "".join(sorted(others)) for key, others in touching.items()}


NEIGHBOURS = _neighbours()


def one_typo(text: str, rng: Random) -> str:
    """Return `text` with exactly one typo, or unchanged when it has no word of two letters or more.

    Pure: the same text and the same state of `rng` give the same typo. Case is kept where a letter stays.
    """
    words = [match for match in _WORD.finditer(text) if len(match.group()) >= _SHORTEST]
    if not words:
        return text
    word = rng.choice([match for match in words if len(match.group()) >= _LONG] or words)
    return text[: word.start()] + _slip(word.group(), rng) + text[word.end() :]


def with_typos(queries: tuple[Query, ...], seed: int) -> tuple[Query, ...]:
    """Return the queries with one typo each; a query's typo depends on the seed and its id, not on order."""
    return tuple(
        Query(query.query_id, one_typo(query.text, Random(f"{seed}:{query.query_id}")), query.fields)
        for query in queries
    )


def _slip(word: str, rng: Random) -> str:
    swaps = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
    kinds = ["delete", "insert", "substitute"] + ["transpose"] * bool(swaps)
    kind = rng.choice(kinds)
    place = rng.randrange(1, len(word))
    if kind == "delete":
        return word[:place] + word[place + 1 :]
    if kind == "transpose":
        place = rng.choice(swaps)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    key = rng.choice(NEIGHBOURS[word[place].lower()])
    key = key.upper() if word[place].isupper() else key
    return word[:place] + key + word[place + (kind == "substitute") :]
