"""Whether relevance means what it says: `python -m training.evaluate_reliability --data DIR --plot PNG`.

Of the documents that a head gives 0.7, seven in ten should be relevant. Measured on titles of occupations
that neither training nor calibration saw the clicks of, with the documents nearest to each, and on fashion
items that were held out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from app.relevance.choice import DEFAULT_RELEVANCE
from app.relevance.images import ImageTower
from app.relevance.model import OnnxRelevance
from training.datasets.judgements import Clicks, Concepts, Fashion, Listing, Listings, read_fashion
from training.reliability import Reliability, draw_reliability, reliability_of
from training.served import served_relevance
from training.vision import read_thumbnails

LISTINGS, SEED = 150, 23
HEADS = ("rawrank", "finerank")


def listings_of(data: Path, relevance: Path) -> dict[str, list[Listing]]:
    """LISTINGS of each kind."""
    items = [item for item in read_fashion(data / "fashion") if item.side == "held_out"]
    ids = [item.item_id for item in items]
    vectors = ImageTower(relevance, threads=os.cpu_count() or 1).embed(
        read_thumbnails(data / "fashion" / "thumbs_60x80.zip", ids)
    )
    images = dict(zip(ids, map(tuple, vectors.tolist()), strict=True))
    concepts = Concepts(data / "jobs")
    sources: dict[str, Listings] = {
        "titles": Clicks(data / "jobs", concepts, "reliability"),
        "fashion": Fashion(items, images, "held_out"),
    }
    rng = Random(SEED)
    return {name: [source.listing(rng) for _ in range(LISTINGS)] for name, source in sources.items()}


async def read(
    model: OnnxRelevance, listings: Sequence[Listing]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Per head s of every document, and whether it is relevant (0 or 1)."""
    found: dict[str, list[float]] = {head: [] for head in HEADS}
    for listing in listings:
        (query,) = await model.embed_queries([listing.query])
        found["rawrank"] += model.similarity(query, await model.embed_documents(listing.documents))
        found["finerank"] += await model.score(listing.query, listing.documents)
    relevant = np.array([one for listing in listings for one in listing.relevant], np.float64)
    return {head: (np.array(scores), relevant) for head, scores in found.items()}


async def measure(data: Path, relevance: Path) -> Reliability:
    """By head and kind of query."""
    model = served_relevance(relevance)
    report = {
        f"{head}, {kind}": reliability_of(scores, relevant)
        for kind, listings in listings_of(data, relevance).items()
        for head, (scores, relevant) in (await read(model, listings)).items()
    }
    await model.close()
    return report


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with jobs/ and fashion/")
    parser.add_argument("--relevance", type=Path, default=DEFAULT_RELEVANCE)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    report = asyncio.run(measure(options.data, options.relevance))
    rows = [
        {"kind": kind, **{name: value for name, value in facts.items() if name != "bins"}}
        for kind, facts in report.items()
    ]
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "bins": report}, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        draw_reliability(report, options.plot)


if __name__ == "__main__":
    main()
