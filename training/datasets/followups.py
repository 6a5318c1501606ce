"""Follow-ups in a fashion shop: the item just viewed + a short refinement -> a self-contained query.

The generator is seeded and works on attributes: brand, gender, colour, article type, usage. A target is
only made when the catalogue has items with exactly those attributes; they are its relevant documents.
Items are split by id, so that a held-out follow-up never starts from an item seen in training.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from app.contracts.prompt import Context, Item
from training.datasets.examples import Example, read_jsonl

Side = Literal["train", "validation", "held_out"]
HELD_OUT_PERCENT, VALIDATION_PERCENT = 20, 5
GENDERS = ("Men", "Women", "Boys", "Girls")
MIN_BRAND_ITEMS = 5
MAX_BRAND_WORDS = 3

ONLY_PREVIOUS_RATIO, WITH_TEXT_RATIO, STANDALONE_RATIO = 0.25, 0.85, 0.12

PHRASES: Mapping[str, tuple[str, ...]] = {
    "colour": ("in {x}", "{x} one", "same in {x}", "but {x}", "do you have it in {x}", "{x}", "show me {x}"),
    "gender": ("for {x}", "{x}'s", "same for {x}", "{x}"),
    "article": ("same brand, {x}", "{x} by the same brand", "{x} from this brand", "same brand {x}"),
    "matching": ("matching {x}", "{x} in the same colour", "{x} to match"),
    "usage": ("something {x}", "for {x} wear", "more {x}", "{x} ones"),
    "brand": ("from {x}", "but from {x}", "{x} instead", "by {x}"),
    "colour+gender": ("in {x} for {y}", "{x}, for {y}", "for {y} in {x}"),
}


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a query asks for; an empty field asks for nothing."""

    brand: str = ""
    gender: str = ""
    colour: str = ""
    article: str = ""
    usage: str = ""

    def query(self) -> str:
        """The self-contained query: the fields that are set, in a fixed order."""
        fields = (self.brand, self.gender, self.usage, self.colour, self.article)
        return " ".join(field for field in fields if field).casefold()


@dataclass(frozen=True, slots=True)
class FashionItem:
    """A catalogue item. `text` is its attribute line, as a shop would send it with the title."""

    item_id: str
    title: str
    text: str
    attributes: Attributes

    @property
    def side(self) -> Side:
        """Where follow-ups from this item may be used; a hash of the id decides."""
        bucket = int(hashlib.sha256(self.item_id.encode()).hexdigest()[:8], 16) % 100
        if bucket < HELD_OUT_PERCENT:
            return "held_out"
        return "validation" if bucket < HELD_OUT_PERCENT + VALIDATION_PERCENT else "train"


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A refinement of an item, with the attributes that it asks for."""

    item: FashionItem
    refinement: str
    wanted: Attributes
    kind: str

    @property
    def context(self) -> Context:
        """The item just viewed."""
        return Context(last_item=Item(self.item.title, self.item.text))


def read_items(path: Path) -> list[FashionItem]:
    """Read items.jsonl; the brand is what stands before the gender in titles, where enough items share it."""
    rows = list(read_jsonl(path))
    brands = Counter(prefix for row in rows if (prefix := _before_gender(row["title"])))
    known = {brand for brand, items in brands.items() if items >= MIN_BRAND_ITEMS}
    items = []
    for row in rows:
        gender = row["gender"] if row["gender"] in GENDERS else ""
        attributes = Attributes(
            _brand(row["title"], known), gender, row["base_colour"], row["article_type"], row["usage"]
        )
        text = ", ".join((row["gender"], row["article_type"], row["base_colour"], row["usage"]))
        items.append(FashionItem(row["id"], row["title"], text, attributes))
    return items


class Catalogue:
    """Which items have which attributes; answers for any subset of fields that follow-ups ask for."""

    def __init__(self, items: Iterable[FashionItem]) -> None:
        self.items = tuple(items)
        self._by_attributes: defaultdict[Attributes, list[str]] = defaultdict(list)
        for item in self.items:
            full = item.attributes
            for wanted in {
                replace(full, brand=b, colour=c, usage=u, gender=g)
                for b in (full.brand, "")
                for c in (full.colour, "")
                for u in (full.usage, "")
                for g in (full.gender, "")
            }:
                self._by_attributes[wanted].append(item.item_id)
        self.values = {
            "colour": sorted({i.attributes.colour for i in self.items}),
            "article": sorted({i.attributes.article for i in self.items}),
            "usage": sorted({i.attributes.usage for i in self.items} - {"NA", ""}),
            "brand": sorted({i.attributes.brand for i in self.items} - {""}),
            "gender": list(GENDERS),
        }

    def relevant(self, wanted: Attributes) -> list[str]:
        """Ids of the items that have every field that `wanted` sets."""
        return self._by_attributes.get(wanted, [])

    def follow_up(self, item: FashionItem, rng: Random) -> FollowUp:
        """Draw a refinement of `item` whose target the catalogue can fill."""
        while True:
            kind = rng.choice(tuple(PHRASES))
            wanted, words = self._refine(item.attributes, kind, rng)
            if words and wanted != item.attributes and self.relevant(wanted):
                return FollowUp(item, rng.choice(PHRASES[kind]).format(**words).casefold(), wanted, kind)

    def _refine(self, have: Attributes, kind: str, rng: Random) -> tuple[Attributes, dict[str, str]]:
        """Return what is wanted and the words that say so; no words where `kind` does not fit the item."""
        drawn = {field: rng.choice(values) for field, values in self.values.items()}
        colour, gender, article, usage, brand = (
            drawn[field] for field in ("colour", "gender", "article", "usage", "brand")
        )
        base = replace(have, usage="")
        refinements = {
            "colour": (replace(base, colour=colour), {"x": colour}),
            "gender": (replace(base, gender=gender, colour=""), {"x": gender}),
            "article": (replace(base, article=article, colour=""), {"x": article} if have.brand else {}),
            "matching": (replace(base, article=article, brand=""), {"x": article}),
            "usage": (replace(base, usage=usage, brand="", colour=""), {"x": usage}),
            "brand": (replace(base, brand=brand, colour=""), {"x": brand}),
            "colour+gender": (replace(base, colour=colour, gender=gender), {"x": colour, "y": gender}),
        }
        return refinements[kind]


class FollowUps:
    """Follow-ups from the items of one side, some with less context than others."""

    def __init__(self, catalogue: Catalogue, side: Side = "train") -> None:
        self._catalogue = catalogue
        self._items = [item for item in catalogue.items if item.side == side]

    def draw(self, rng: Random) -> Example:
        """Draw a follow-up; some stand alone already (to be left as they are), some lack item or text."""
        item = rng.choice(self._items)
        follow_up = self._catalogue.follow_up(item, rng)
        target, context = follow_up.wanted.query(), follow_up.context
        if rng.random() < STANDALONE_RATIO:
            return Example(query=target, target=target, context=context)
        if rng.random() < ONLY_PREVIOUS_RATIO:
            asked = replace(item.attributes, usage="").query()
            context = Context(previous_queries=(asked,))
        elif rng.random() > WITH_TEXT_RATIO:
            context = Context(last_item=Item(item.title))
        return Example(query=follow_up.refinement, target=target, context=context)


def _before_gender(title: str) -> str:
    words = title.split()
    places = [place for place, word in enumerate(words[: MAX_BRAND_WORDS + 1]) if word in GENDERS]
    return " ".join(words[: places[0]]) if places and places[0] else ""


def _brand(title: str, known: set[str]) -> str:
    words = title.split()
    for size in range(MAX_BRAND_WORDS, 0, -1):
        if (prefix := " ".join(words[:size])) in known:
            return prefix
    return ""
