"""Who searches for what: queries by popularity, people by theirs, and what each search brings up.

Queries are real job titles where the data sets are there, the lines of a file where one is named, and else
made up; the report says which. A query brings up the same documents each time, as an index would.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.open_loop import zipf
from loadtest.scenarios import Traffic

LEVELS = (
    "",
    "senior",
    "junior",
    "assistant",
    "chief",
    "temporary",
    "night shift",
    "part time",
    "trainee",
    "lead",
)
FIELDS = (
    "bakery",
    "hospital",
    "harbour",
    "forest",
    "railway",
    "school",
    "hotel",
    "mill",
    "dairy",
    "garden",
    "ward",
)
PLACES = ("", "leeds", "turin", "ghent", "malmo", "porto", "lyon", "riga", "split", "graz", "cork", "vigo")
TRADES = (
    "nurse",
    "driver",
    "clerk",
    "welder",
    "cook",
    "manager",
    "teacher",
    "engineer",
    "cleaner",
    "buyer",
    "guard",
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Queries, most popular first, and documents.

    Args:
        told: where they are from, for the report.
    """

    queries: list[str]
    documents: list[str]
    told: str


@dataclass(frozen=True, slots=True)
class Search:
    """What one person does: looks, thinks, does something with it. Bodies are as the wire has them."""

    query_id: str
    query: str
    rewrite: dict[str, Any]
    signals: dict[str, Any]
    actions: tuple[str, ...]
    think_s: tuple[float, float]


def read_corpus(data: Path | None, file: Path | None, *, seed: int) -> Corpus:
    """Return queries and documents: of `file` (one query a line), else of `data`/jobs, else made up."""
    queries, documents, told = _made_up(), _made_up(), "made-up job titles, for queries and documents"
    jobs = data / "jobs" if data else None
    if jobs and jobs.is_dir():
        queries, documents = _titles(jobs / "synonyms_train.tsv"), _adverts(jobs)
        told = "real job titles (O*NET); documents are ESCO's names of occupations with O*NET's descriptions"
    if file:
        queries = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        told = f"queries of {file.name}; documents of: {told}"
    distinct = sorted(set(queries))
    random.Random(seed).shuffle(distinct)
    return Corpus(distinct, documents, told)


def searches(
    corpus: Corpus, traffic: Traffic, *, queries: int | None, run: str, seed: int
) -> Iterator[Search]:
    """Draw searches for ever.

    Args:
        corpus: what there is to search for; its first `queries` are used, or those of `traffic`.
        traffic: what a journey is.
        queries: distinct ones, where they are not as many as `traffic` says.
        run: makes ids of this run its own.
        seed: the same, the same searches.
    """
    count = min(queries or traffic.queries, len(corpus.queries))
    whats, whos = zipf(count, traffic.zipf, seed=seed), zipf(traffic.clients, traffic.zipf, seed=seed + 1)
    draw = random.Random(seed + 2)
    brought_up: dict[int, list[dict[str, str]]] = {}
    for number, (what, who) in enumerate(zip(whats, whos, strict=False)):
        if what not in brought_up:
            brought_up[what] = _brought_up(corpus, traffic, seed=what)
        asked = {
            "query": corpus.queries[what],
            "query_id": f"{run}-{number}",
            "client_id": f"client-{who}",
        }
        clicked = draw.random() < traffic.click_ratio
        stayed = clicked and draw.random() < traffic.strict_ratio
        yield Search(
            asked["query_id"],
            asked["query"],
            asked,
            {**asked, "candidates": brought_up[what]},
            (*(["click"] if clicked else []), *(["strict_click"] if stayed else [])),
            (draw.expovariate(1 / traffic.think_s), draw.expovariate(1 / traffic.think_s)),
        )


def _brought_up(corpus: Corpus, traffic: Traffic, *, seed: int) -> list[dict[str, str]]:
    draw = random.Random(seed)
    found = draw.sample(range(len(corpus.documents)), draw.randint(*traffic.candidates))
    return [
        {"id": str(place), "text": " ".join(corpus.documents[place].split()[: traffic.document_words])}
        for place in found
    ]


def _made_up() -> list[str]:
    return [" ".join(words).strip() for words in itertools.product(LEVELS, FIELDS, TRADES, PLACES)]


def _titles(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["title"] for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _adverts(jobs: Path) -> list[str]:
    names, descriptions = (
        [json.loads(line)[key] for line in (jobs / name).read_text(encoding="utf-8").splitlines()]
        for name, key in (("corpus.jsonl", "text"), ("occupations.jsonl", "description"))
    )
    return [f"{name}. {told}" for name, told in zip(names, itertools.cycle(descriptions), strict=False)]
