"""What the relevance model learns from: a query, a document that answers it, and some that only look like it.

    concepts   ESCO surface forms of one concept answer one another
    clicks     a title -> the surface forms that people who use it look for (`labels_train.tsv` alone)
    products   words of a product's own title and attributes -> the product
    fashion    colour, article and gender -> an item with its image; titles mostly without their colour

No qrel is opened, and of O*NET's titles only those of the occupations in `labels_train.tsv`: a deployed
ranker knows its own click log and no more. What SFT holds out of these (`JobSplit.seen`, `.unseen`) is held
out here, and of the fashion items those that follow-ups hold out. Of the click log's occupations one in five,
by a hash, has no clicks in training: the titles of some calibrate, those of the others show how well.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, Protocol

import numpy as np

from app.relevance.base import Content
from training.datasets.beir import read_corpus
from training.datasets.examples import read_tsv
from training.datasets.followups import FashionItem, Side, read_items
from training.datasets.jobs import read_jobs
from training.retrieval import Floats, cached_embeddings, tokens

NEGATIVES = 3
NEIGHBOURS = 96
"""Hard negatives are drawn from so many of the nearest documents, without those that are relevant."""

ClickSide = Literal["train", "calibration", "reliability"]

COLOURLESS_RATIO = 0.7
_BLOCK = 512  # bounds the similarity matrix: 512 x 34,000 float32 is 70 MB


@dataclass(frozen=True, slots=True)
class Judgement:
    """A query, a relevant document, and NEGATIVES others; `answers` names what else may answer the query.

    Two judgements of the same `answers` must not take one another's documents for negatives. `group` is the
    row of `Concepts.centroids` for the relevant document, where the documents are of concepts.
    """

    query: str
    relevant: Content
    others: tuple[Content, ...]
    answers: str
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A query and documents that a search would bring, each relevant or not."""

    query: str
    documents: tuple[Content, ...]
    relevant: tuple[bool, ...]


class Judgements(Protocol):
    """An endless supply, a pure function of the generator's state."""

    def draw(self, rng: Random) -> Judgement:
        """Draw one."""


class Listings(Protocol):
    """An endless supply of what a calibration is fitted on, a pure function of the generator's state."""

    def listing(self, rng: Random) -> Listing:
        """Draw one."""


class Concepts:
    """Surface forms of one concept; the nearest forms of other concepts are the negatives."""

    def __init__(self, folder: Path) -> None:
        self.documents = read_corpus(folder / "corpus.jsonl")
        self.embeddings = cached_embeddings([document.content for document in self.documents])
        self.concept = [str(document.fields["concept_id"]) for document in self.documents]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for place, concept in enumerate(self.concept):
            groups[concept].append(place)
        number = {concept: row for row, concept in enumerate(groups)}
        self.group = [number[concept] for concept in self.concept]
        sums = np.stack([self.embeddings[places].sum(0) for places in groups.values()])
        self.centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        """[groups, dim], rows of length 1: the mean of what the encoder, as it comes, makes of the forms."""
        self._groups = [group for group in groups.values() if len(group) > 1]
        self._near = nearest(self.embeddings, self.embeddings)

    def draw(self, rng: Random) -> Judgement:
        """Two forms of a concept, each concept as often as another."""
        group = rng.choice(self._groups)
        query, relevant = rng.sample(group, 2)
        return Judgement(
            self.documents[query].content,
            Content(self.documents[relevant].content),
            self.unlike(group, self._near[query], rng),
            self.concept[query],
            self.group[query],
        )

    def crowd(self, rng: Random, count: int) -> tuple[list[Content], list[int]]:
        """Any documents, and the group of each."""
        places = rng.sample(range(len(self.documents)), count)
        return [Content(self.documents[place].content) for place in places], [
            self.group[place] for place in places
        ]

    def listed(self, query: str, near: Sequence[int], relevant: Iterable[int]) -> Listing:
        """Documents at these places, without the query itself."""
        found = set(relevant)
        text = query.casefold()
        kept = [place for place in near if self.documents[place].content.casefold() != text]
        return Listing(
            query,
            tuple(Content(self.documents[place].content) for place in kept),
            tuple(place in found for place in kept),
        )

    def unlike(self, relevant: Iterable[int], near: Sequence[int], rng: Random) -> tuple[Content, ...]:
        """NEGATIVES of the near documents, none with the text of a relevant one; at random where too few."""
        texts = {self.documents[place].content.casefold() for place in relevant}
        candidates = [*near, *(rng.randrange(len(self.documents)) for _ in range(2 * NEGATIVES))]
        kept = [
            content
            for place in candidates
            if (content := self.documents[place].content).casefold() not in texts
        ]
        kept = kept[: max(NEGATIVES, len(kept) - 2 * NEGATIVES)]
        return tuple(Content(text) for text in rng.sample(kept, NEGATIVES))


class Clicks:
    """Titles of the click log and the forms that were clicked; neighbours nobody clicked are negatives.

    Those of the occupations of one side alone, see `click_side`.
    """

    def __init__(self, folder: Path, concepts: Concepts, side: ClickSide = "train") -> None:
        self._concepts = concepts
        place = {document.doc_id: number for number, document in enumerate(concepts.documents)}
        clicked: defaultdict[str, list[int]] = defaultdict(list)
        for row in read_tsv(folder / "labels_train.tsv"):
            clicked[row["onet_code"]].append(place[row["corpus-id"]])
        # A title of several occupations is left out, as it is in the dev splits.
        self._titles = [
            (title, codes[0])
            for title, codes in read_jobs(folder).train
            if len(codes) == 1 and codes[0] in clicked and click_side(codes[0]) == side
        ]
        self._clicked = clicked
        near = nearest(cached_embeddings([title for title, _ in self._titles]), concepts.embeddings)
        self._near = dict(zip([title for title, _ in self._titles], near, strict=True))

    def draw(self, rng: Random) -> Judgement:
        """A title and one of the forms clicked for it."""
        title, code = rng.choice(self._titles)
        clicked = self._clicked[code]
        place = rng.choice(clicked)
        return Judgement(
            title,
            Content(self._concepts.documents[place].content),
            self._concepts.unlike(clicked, self._near[title], rng),
            code,
            self._concepts.group[place],
        )

    def listing(self, rng: Random) -> Listing:
        """A title, and the forms nearest to it; those that were clicked are relevant."""
        title, code = rng.choice(self._titles)
        return self._concepts.listed(title, self._near[title], self._clicked[code])


def click_side(onet_code: str) -> ClickSide:
    """What the clicks of an occupation are for, by a hash of its code: a tenth each is held out."""
    held_out: dict[int, ClickSide] = {0: "calibration", 5: "reliability"}
    return held_out.get(zlib.crc32(onet_code.encode()) % 10, "train")


class Products:
    """Words of a product in any order; products that have some of them, not all, are the negatives."""

    def __init__(self, folder: Path) -> None:
        self._documents = read_corpus(folder / "corpus.jsonl")
        self._words = [set(tokens(document.content)) for document in self._documents]
        self._having: defaultdict[str, list[int]] = defaultdict(list)
        for place, words in enumerate(self._words):
            for word in words:
                self._having[word].append(place)

    def draw(self, rng: Random) -> Judgement:
        """One to three words of the title or of an attribute's value, sometimes after the brand."""
        while True:
            place = rng.randrange(len(self._documents))
            document = self._documents[place]
            values = [part.partition(":")[2] or part for part in document.text.split(";")]
            source = tokens(document.title if rng.random() < 0.6 else rng.choice(values))  # noqa: PLR2004
            words = [word for word in dict.fromkeys(source) if len(word) > 1]
            if not words:
                continue
            query = rng.sample(words, min(len(words), rng.randint(1, 3)))
            brand = str(document.fields.get("brand", "")).casefold()
            if brand and brand not in query and rng.random() < 0.3:  # noqa: PLR2004
                query.insert(0, brand)
            if len(near := self._near(set(tokens(" ".join(query))), rng)) >= NEGATIVES:
                break
        return Judgement(
            " ".join(query),
            Content(document.content),
            tuple(Content(self._documents[other].content) for other in rng.sample(near, NEGATIVES)),
            " ".join(sorted(query)),
        )

    def having(self, query: str) -> frozenset[str]:
        """Ids of the products that have every word of the query."""
        places = (self._having.get(word, ()) for word in tokens(query))
        return frozenset(self._documents[n].doc_id for n in set.intersection(*map(set, places)))

    def _near(self, wanted: set[str], rng: Random) -> list[int]:
        """Products that lack one of the words, at most NEIGHBOURS, those with most of the others first."""
        found: dict[int, None] = {}
        for word in sorted(wanted):
            having = self._having[word]
            found.update(dict.fromkeys(rng.sample(having, min(NEIGHBOURS, len(having)))))
        # Where every product that has one has all, any other will do.
        found.update(dict.fromkeys(rng.randrange(len(self._documents)) for _ in range(NEGATIVES)))
        lacking = [place for place in found if not wanted <= self._words[place]]
        return sorted(lacking, key=lambda place: -len(wanted & self._words[place]))[:NEIGHBOURS]


class Fashion:
    """What an item is, in words, and the item with its image; the like in other colours are the negatives."""

    def __init__(
        self, items: Iterable[FashionItem], images: Mapping[str, Sequence[float]], side: Side = "train"
    ) -> None:
        self._items = [item for item in items if item.side == side and item.item_id in images]
        self._images = images
        by_article: defaultdict[str, list[FashionItem]] = defaultdict(list)
        for item in self._items:
            by_article[item.attributes.article].append(item)
        self._by_article = by_article

    def draw(self, rng: Random) -> Judgement:
        """Mostly colour and article, sometimes with whom it is for."""
        item, others = self._pick(rng)
        wanted = item.attributes
        elsewhere = rng.choice(self._items)
        while elsewhere.attributes.article == wanted.article:
            elsewhere = rng.choice(self._items)
        words = [wanted.colour, wanted.article]
        if wanted.gender and rng.random() < 0.3:  # noqa: PLR2004
            words.insert(rng.randrange(3), wanted.gender)
        negatives = [*rng.sample(others, NEGATIVES - 1), elsewhere]
        return Judgement(
            " ".join(words).casefold(),
            self._content(item, rng),
            tuple(self._content(other, rng) for other in negatives),
            f"{wanted.colour} {wanted.article}",
        )

    def listing(self, rng: Random) -> Listing:
        """A colour and an article, and any items, half of them of the article where there are as many."""
        wanted = self._pick(rng)[0].attributes
        like = self._by_article[wanted.article]
        items = rng.sample(like, min(NEIGHBOURS // 2, len(like)))
        items += rng.sample(self._items, NEIGHBOURS - len(items))
        relevant = [
            (item.attributes.colour, item.attributes.article) == (wanted.colour, wanted.article)
            for item in items
        ]
        return Listing(
            f"{wanted.colour} {wanted.article}".casefold(),
            tuple(self._content(item, rng) for item in items),
            tuple(relevant),
        )

    def _pick(self, rng: Random) -> tuple[FashionItem, list[FashionItem]]:
        """An item with a colour, and enough of its article in other colours."""
        while True:
            item = rng.choice(self._items)
            wanted = item.attributes
            like = self._by_article[wanted.article]
            others = [other for other in like if other.attributes.colour != wanted.colour]
            if wanted.colour and len(others) >= NEGATIVES - 1:
                return item, others

    def _content(self, item: FashionItem, rng: Random) -> Content:
        title = without_colour(item) if rng.random() < COLOURLESS_RATIO else item.title
        return Content(title, tuple(self._images[item.item_id]))


def without_colour(item: FashionItem) -> str:
    """The title without the words of its colour."""
    colour = set(tokens(item.attributes.colour))
    return " ".join(word for word in item.title.split() if not colour & set(tokens(word)))


def read_fashion(folder: Path) -> list[FashionItem]:
    """The items of the fashion folder. Raises DataError."""
    return list(read_items(folder / "items.jsonl"))


def nearest(queries: Floats, documents: Floats, count: int = NEIGHBOURS) -> list[list[int]]:
    """The places of the `count` nearest documents of each query, by dot product, in no order."""
    found: list[list[int]] = []
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ documents.T
        found += np.argpartition(-scores, count, axis=1)[:, :count].tolist()
    return found
