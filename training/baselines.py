"""What a rewriter is compared with: the nearest training title, and the oracle.

The sceptic's baseline needs no language model: embed the query, take the nearest O*NET title of the training
file, and answer with the canonical title of its occupation. The oracle answers with the canonical title of
the query's own occupation, which is what a rewriter that knows the taxonomy perfectly would reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.datasets.beir import read_queries
from training.datasets.examples import DataError, read_jsonl, read_tsv
from training.retrieval import CACHE, cached_embeddings, embed

_BLOCK = 128  # bounds the similarity matrix: 128 x 45,000 float32 is 23 MB


class NearestTitle:
    """Rewrites a query to the O*NET title of the nearest training title by MiniLM."""

    def __init__(self, folder: Path, cache_dir: Path = CACHE) -> None:
        """Read `synonyms_train.tsv` and `occupations.jsonl` of the jobs folder. Raises DataError."""
        names = read_occupation_titles(folder / "occupations.jsonl")
        path = folder / "synonyms_train.tsv"
        lowest: dict[str, tuple[str, str]] = {}  # by title without case: (code, title), the lowest code wins
        for number, row in enumerate(read_tsv(path), start=2):
            title, code = row["title"], row["onet_code"]
            if code not in names:
                raise DataError(f"{path}:{number}: occupations.jsonl lacks the code {code!r}")
            lowest[title.casefold()] = min(lowest.get(title.casefold(), (code, title)), (code, title))
        pairs = sorted(lowest.values())  # argmax takes the first of equals: again the lowest code
        self._answers = [names[code] for code, _ in pairs]
        self._matrix = cached_embeddings([title for _, title in pairs], cache_dir)

    def rewrite(self, queries: Sequence[str]) -> list[str]:
        """Return one title per query; it always answers, right or wrong."""
        answers: list[str] = []
        for start in range(0, len(queries), _BLOCK):
            similarity = embed(queries[start : start + _BLOCK]) @ self._matrix.T
            answers += [self._answers[place] for place in np.argmax(similarity, axis=1)]
        return answers


def read_occupation_titles(path: Path) -> dict[str, str]:
    """Read `occupations.jsonl`: onet_code -> canonical title. Raises DataError."""
    try:
        return {row["code"]: row["title"] for row in read_jsonl(path)}
    except KeyError as missing:
        raise DataError(f"{path}: an occupation lacks the field {missing}") from None


def canonical_titles(folder: Path) -> dict[str, str]:
    """Return onet_code -> canonical title, for unseen occupations from the `canonical` queries.

    Only for measuring: it reads the development queries. Empty for a folder without `occupations.jsonl`.
    """
    if not (folder / "occupations.jsonl").exists():
        return {}
    titles = {
        query.fields["onet_code"]: query.text
        for query in read_queries(folder / "queries.jsonl")
        if query.fields.get("source") == "canonical"
    }
    return titles | read_occupation_titles(folder / "occupations.jsonl")
