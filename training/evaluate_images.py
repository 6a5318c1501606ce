"""What an image is worth: `python -m training.evaluate_images --data DIR/fashion --json OUT`.

Queries name a colour and an article ("navy blue shirts"); the documents are the items that follow-ups hold
out, which the relevance model never saw. An item is relevant that is of that colour and article and whose
title says no word of the colour, so that only its image can tell. R@10 by the bi-encoder over all held-out
items, with the images and without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from app.relevance.base import Content
from app.relevance.choice import DEFAULT_RELEVANCE
from app.relevance.images import ImageTower
from training.datasets.followups import FashionItem
from training.datasets.judgements import read_fashion, without_colour
from training.measures import bootstrap
from training.retrieval import Floats
from training.served import served_relevance
from training.vision import read_thumbnails

DEPTH, MIN_RELEVANT = 10, 3


def questions(items: list[FashionItem]) -> dict[str, list[int]]:
    """Query -> places of the items that answer it and whose titles do not say the colour."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        colour, article = item.attributes.colour, item.attributes.article
        if colour and article and without_colour(item) == item.title:
            found[f"{colour} {article}".casefold()].append(place)
    return {query: places for query, places in sorted(found.items()) if len(places) >= MIN_RELEVANT}


def recalls(queries: Floats, documents: Floats, relevant: list[list[int]]) -> np.ndarray:
    """R@10 of each query: the share of the relevant, or of ten of them, among the ten nearest."""
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :DEPTH]
    return np.array(
        [
            len(set(row) & set(wanted)) / min(DEPTH, len(wanted))
            for row, wanted in zip(order.tolist(), relevant, strict=True)
        ]
    )


async def measure(folder: Path, relevance: Path) -> dict[str, object]:
    """R@10 with and without images, with intervals; the first row has the difference."""
    items = [item for item in read_fashion(folder) if item.side == "held_out"]
    images = ImageTower(relevance, threads=2).embed(
        read_thumbnails(folder / "thumbs_60x80.zip", [item.item_id for item in items])
    )
    asked = questions(items)
    model = served_relevance(relevance)
    queries = await model.embed_queries(list(asked))
    seen = [Content(item.title, tuple(image)) for item, image in zip(items, images.tolist(), strict=True)]
    values = {
        name: recalls(queries, await model.embed_documents(contents), list(asked.values()))
        for name, contents in (("with", seen), ("without", [Content(item.title) for item in items]))
    }
    await model.close()
    difference = bootstrap(values["with"] - values["without"])
    rows: list[dict[str, object]] = [
        {
            "images": name,
            "r@10": round(estimate.mean, 4),
            "ci": [round(estimate.low, 4), round(estimate.high, 4)],
        }
        for name, estimate in ((name, bootstrap(row)) for name, row in values.items())
    ]
    rows[0] |= {
        "delta": round(difference.mean, 4),
        "delta_ci": [round(difference.low, 4), round(difference.high, 4)],
    }
    return {"queries": len(asked), "items": len(items), "rows": rows}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the fashion folder")
    parser.add_argument("--relevance", type=Path, default=DEFAULT_RELEVANCE)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = asyncio.run(measure(options.data, options.relevance))
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
