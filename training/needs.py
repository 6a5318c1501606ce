"""What simulated people look for: who types what, in which context, and which documents would satisfy them.

Of each task the training side alone: no dev query and no qrel is opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from app.contracts.prompt import NO_CONTEXT, Context
from training.datasets.examples import read_tsv
from training.datasets.followups import Catalogue, read_items
from training.datasets.jobs import read_jobs
from training.datasets.judgements import Products, click_side
from training.datasets.spelling import CLEAN_RATIO
from training.datasets.typos import one_typo

MOST_RELEVANT = 200
"""A product query that more products answer says too little of what is wanted."""
DRAWS = 50
"""So many for each need that is asked for; where they repeat themselves there are fewer needs."""


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody types, what is known when they do, and which documents (ids) would satisfy them."""

    query: str
    relevant: frozenset[str]
    context: Context = NO_CONTEXT


def job_needs(folder: Path, count: int, seed: int) -> list[Need]:
    """Return titles of the training side of O*NET whose occupations `labels_train.tsv` has, drawn at random.

    Titles that validation holds out are not among them, and none of the dev splits' occupations is. Left out
    are the occupations whose clicks the deployed relevance model was not trained on (see `click_side`), so
    that they can show what carries over to occupations without clicks.

    Raises:
        DataError: a file is missing or malformed.
    """
    labels: dict[str, set[str]] = {}
    for row in read_tsv(folder / "labels_train.tsv"):
        if click_side(row["onet_code"]) == "train":
            labels.setdefault(row["onet_code"], set()).add(row["corpus-id"])
    needs = [
        Need(title, frozenset(labels[codes[0]]))
        for title, codes in read_jobs(folder).train
        if len(codes) == 1 and codes[0] in labels
    ]
    return Random(seed).sample(needs, min(count, len(needs)))


def quiet_needs(folder: Path, count: int, seed: int) -> list[Need]:
    """Return titles of the training side whose occupations have no needs in `job_needs`, drawn at random.

    What people want who type them is not known, so nothing is relevant, and nothing gets clicked.

    Raises:
        DataError: a file is missing or malformed.
    """
    codes_of: defaultdict[str, set[str]] = defaultdict(set)
    for title, codes in read_jobs(folder).train:  # a form of a title may be listed more than once
        codes_of[title].update(codes)
    labelled = {row["onet_code"] for row in read_tsv(folder / "labels_train.tsv")}
    known = {code for code in labelled if click_side(code) == "train"}
    titles = [title for title, codes in codes_of.items() if not known & codes]
    return [Need(title, frozenset()) for title in Random(seed).sample(titles, min(count, len(titles)))]


def product_needs(folder: Path, count: int, seed: int) -> list[Need]:
    """Return words of products, most of them with a typo; relevant are the products that have them all.

    Raises:
        DataError: the corpus is missing or malformed.
    """
    products, rng = Products(folder), Random(seed)

    def draw() -> Need | None:
        words = products.draw(rng).query
        relevant = products.having(words)
        if not 0 < len(relevant) <= MOST_RELEVANT:
            return None
        return Need(words if rng.random() < CLEAN_RATIO else one_typo(words, rng), relevant)

    return _distinct(draw, count)


def fashion_needs(folder: Path, count: int, seed: int) -> list[Need]:
    """Return follow-ups from items of the training side, the item just viewed as the context.

    Relevant are the items with the attributes that the item and the follow-up ask for together.

    Raises:
        DataError: the items are missing or malformed.
    """
    catalogue, rng = Catalogue(read_items(folder / "items.jsonl")), Random(seed)
    viewed = [item for item in catalogue.items if item.side == "train"]

    def draw() -> Need:
        asked = catalogue.follow_up(rng.choice(viewed), rng)
        return Need(asked.refinement, frozenset(catalogue.relevant(asked.wanted)), asked.context)

    return _distinct(draw, count)


NEEDS: Mapping[str, tuple[str, Callable[[Path, int, int], list[Need]]]] = {
    "jobs": ("jobs", job_needs),
    "quiet jobs": ("jobs", quiet_needs),
    "products": ("products", product_needs),
    "fashion": ("fashion", fashion_needs),
}
"""Kind of search -> its data folder, and what makes needs of that, how many, and a seed."""


def _distinct(draw: Callable[[], Need | None], count: int) -> list[Need]:
    """At most `count` needs, no two of the same query in the same context."""
    found: dict[tuple[str, Context], Need] = {}
    for _ in range(DRAWS * count):
        if len(found) == count:
            break
        if need := draw():
            found.setdefault((need.query, need.context), need)
    return list(found.values())
