"""What people mean who look for an occupation of which no label is known: what bears its names.

A vocabulary of occupations lists each under many names, and so does the corpus. A concept of the corpus is a
namesake of an occupation where they share enough names, more than the concept shares with any other. It is a
guess from texts alone: no label is read, so those there are can tell how often it is right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from training.datasets.beir import Document

_WORD = re.compile(r"[^\W_]+")
OWN_TITLE_VOTES = 2.0
LEAST_VOTES = 2.0
LEAST_SHARE = 0.5  # of the votes for the occupation's best concept


def namesakes(
    titles: Iterable[tuple[str, Sequence[str]]],
    canonical: Mapping[str, str],
    documents: Sequence[Document],
) -> dict[str, frozenset[str]]:
    """Return code -> ids of the documents that mean the occupation; codes without a namesake are left out.

    Args:
        titles: names with the codes of their occupations; a name of several counts in shares.
        canonical: code -> the name that stands for the occupation.
        documents: of kind `occupation` where they name what one concept (`concept_id`) is called.
    """
    called: defaultdict[str, set[str]] = defaultdict(set)
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for document in documents:
        concept = str(document.fields["concept_id"])
        ids[concept].add(document.doc_id)
        if document.fields["kind"] == "occupation":
            called[name_key(document.content)].add(concept)
    votes = _votes(titles, canonical, called)
    most: dict[str, tuple[float, str]] = {}
    for (code, concept), count in votes.items():
        most[concept] = max(most.get(concept, (0.0, "")), (count, code))
    best: dict[str, float] = {}
    for (code, _), count in votes.items():
        best[code] = max(best.get(code, 0.0), count)
    meant: defaultdict[str, set[str]] = defaultdict(set)
    for (code, concept), count in votes.items():
        if most[concept][1] == code and count >= max(LEAST_VOTES, LEAST_SHARE * best[code]):
            meant[code] |= ids[concept]
    return {code: frozenset(found) for code, found in meant.items()}


def _votes(
    titles: Iterable[tuple[str, Sequence[str]]],
    canonical: Mapping[str, str],
    called: Mapping[str, Iterable[str]],
) -> dict[tuple[str, str], float]:
    """(code, concept) -> names in common; `called` says which concepts bear a name."""
    votes: defaultdict[tuple[str, str], float] = defaultdict(float)
    for title, codes in titles:
        for concept in called.get(name_key(title), ()):
            for code in codes:
                votes[code, concept] += 1 / len(codes)
    for code, title in canonical.items():
        for concept in called.get(name_key(title), ()):
            votes[code, concept] += OWN_TITLE_VOTES
    return votes


def name_key(name: str) -> str:
    """What spellings of one name have in common: case, punctuation and a plural's s make no difference."""
    words = _WORD.findall(name.casefold())
    return " ".join(word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in words)  # noqa: PLR2004
