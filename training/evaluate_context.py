"""Does the context work? Follow-ups in a shop, and conversational turns, with and without it.

Follow-ups start from held-out items; relevant are the catalogue items with exactly the wanted attributes
(only those with 1 to 10 of them are asked, so that R@10 can reach 1). Retrieval reads title and attribute
line. Conversations are compared with the human rewrites by exact match (case and final punctuation ignored)
and ROUGE-1 recall (Lin 2004), the best over the references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import ir_measures
import numpy as np
from ir_measures import R

from app.contracts.prompt import NO_CONTEXT, Context
from training.datasets.beir import Document
from training.datasets.conversations import Turn, read_turns
from training.datasets.followups import Catalogue, FollowUp, read_items
from training.evaluate import RETRIEVERS, ranked
from training.measures import bootstrap
from training.retrieval import Rankings, tokens
from training.served import ServedRewriter

FOLLOW_UPS, SEED = 600, 97
DEEPEST = 10

Asked = Sequence[tuple[str, Context]]
Rewrite = Callable[[Asked], list[str]]
"""From (query, context) pairs to texts: the best rewrite, or the query where there is none."""


def rewrite_with(served: ServedRewriter) -> Rewrite:
    """Make a Rewrite of the service: its best rewrite, or the original where it abstains."""

    def rewrite(asked: Asked) -> list[str]:
        answers = served.answers(asked)
        return [a.rewrites[0].text if a.rewrites else a.query.text for a in answers]

    return rewrite


def evaluate_follow_ups(items_file: Path, rewrite: Rewrite) -> list[dict[str, Any]]:
    """Return a row per arm (`none`, `rewrite`, `rewrite_without_context`) and retriever.

    Each has `exact` (share of texts equal to the self-contained query), `r@10` and its interval `ci`.
    """
    catalogue = Catalogue(read_items(items_file))
    asked = draw_follow_ups(catalogue)
    texts = {
        "none": [follow_up.refinement for follow_up in asked],
        "rewrite": rewrite([(follow_up.refinement, follow_up.context) for follow_up in asked]),
        "rewrite_without_context": rewrite([(follow_up.refinement, NO_CONTEXT) for follow_up in asked]),
        "oracle": [follow_up.wanted.query() for follow_up in asked],
    }
    rankings = Rankings.over([Document(item.item_id, item.title, item.text) for item in catalogue.items])
    qrels = {
        str(number): dict.fromkeys(catalogue.relevant(follow_up.wanted), 1)
        for number, follow_up in enumerate(asked)
    }
    rows = []
    for arm, written in texts.items():
        exact = float(
            np.mean([t.casefold() == f.wanted.query() for t, f in zip(written, asked, strict=True)])
        )
        for retriever in RETRIEVERS:
            recall = bootstrap(
                _recall(qrels, ranked(rankings, retriever, [[(text, 1.0)] for text in written]))
            )
            rows.append(
                {
                    "set": "followups",
                    "retriever": retriever,
                    "rewrite": arm,
                    "exact": round(exact, 4),
                    "r@10": round(recall.mean, 4),
                    "ci": [round(recall.low, 4), round(recall.high, 4)],
                    "queries": len(asked),
                }
            )
    return rows


def draw_follow_ups(catalogue: Catalogue) -> list[FollowUp]:
    """Draw the held-out follow-ups that are measured; deterministic."""
    rng = Random(SEED)
    items = [item for item in catalogue.items if item.side == "held_out"]
    asked: list[FollowUp] = []
    while len(asked) < FOLLOW_UPS:
        follow_up = catalogue.follow_up(rng.choice(items), rng)
        if len(catalogue.relevant(follow_up.wanted)) <= DEEPEST:
            asked.append(follow_up)
    return asked


def evaluate_conversations(turns_file: Path, rewrite: Rewrite) -> list[dict[str, Any]]:
    """Return a row per arm: `none` (copy the query), `append` (previous utterance + query), `rewrite`.

    Only turns that have an earlier utterance count: the others have no context to use.
    """
    turns = [turn for turn in read_turns(turns_file) if turn.previous]
    texts = {
        "none": [turn.query for turn in turns],
        "append": [f"{turn.previous[-1]} {turn.query}" for turn in turns],
        "rewrite": rewrite([(turn.query, turn.context) for turn in turns]),
    }
    return [
        {
            "set": "conversations",
            "rewrite": arm,
            "exact": round(float(np.mean([_exact(*pair) for pair in zip(written, turns, strict=True)])), 4),
            "rouge1_recall": round(
                float(
                    np.mean(
                        [
                            rouge1_recall(text, turn.rewrites)
                            for text, turn in zip(written, turns, strict=True)
                        ]
                    )
                ),
                4,
            ),
            "queries": len(turns),
        }
        for arm, written in texts.items()
    ]


def rouge1_recall(text: str, references: Sequence[str]) -> float:
    """Return the largest share of a reference's words that `text` has, counted with their repetitions."""
    have = Counter(tokens(text))
    return max(
        (have & Counter(words)).total() / len(words) if (words := tokens(reference)) else 0.0
        for reference in references
    )


def _exact(text: str, turn: Turn) -> bool:
    return tokens(text) in [tokens(reference) for reference in turn.rewrites]


def _recall(
    qrels: dict[str, dict[str, int]], found: Sequence[Sequence[str]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    run = {
        str(number): {doc: float(-rank) for rank, doc in enumerate(docs[:DEEPEST])}
        for number, docs in enumerate(found)
    }
    values = np.zeros(len(found))
    for metric in ir_measures.iter_calc([R @ DEEPEST], qrels, run):
        values[int(metric.query_id)] = metric.value
    return values
