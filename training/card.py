"""The model card of a checkpoint: what it is, what it read, how it did on held-out data, where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.calibrate import Observation
from training.config import LoopConfig, RunConfig

# Each source: what it teaches, where it comes from, and under which terms.
SOURCES: Mapping[str, str] = {
    "jobs": "job titles people use -> O*NET titles. O*NET 27.0 Database, CC BY 4.0.",
    "recombined": "titles made of the words of real ones -> O*NET titles by the probabilities of two "
    "classifiers trained on the real ones, one over character n-grams, one over sentence embeddings of "
    "all-MiniLM-L6-v2 (Apache-2.0). O*NET 27.0 Database, CC BY 4.0.",
    "products": "misspelt phrases of an electronics catalogue -> the phrases. Product texts from Icecat "
    "(Open Content License) through o19s/chorus (Apache-2.0).",
    "typos": "misspelt English words -> the words. crate-ci/typos (MIT or Apache-2.0).",
    "context": "conversational turns -> the turn asked alone. TREC CAsT 2019-2022 and TREC iKAT 2023-2025 "
    "(MIT), Alexa contextual query rewrite (MIT-0; the licence of the dialogues beneath it is not stated).",
    "fashion": "an item just viewed and a refinement -> a self-contained query, generated from item "
    "attributes. Fashion Product Images through public repositories; the licence was not verified: do not "
    "redistribute the data, and train without this source where that matters.",
}

ATTRIBUTION = (
    "This model was trained on information from the O*NET 27.0 Database by the U.S. Department of Labor, "
    "Employment and Training Administration (USDOL/ETA), used under the CC BY 4.0 licence; it was modified "
    "here. O*NET® is a trademark of USDOL/ETA. USDOL/ETA has not approved, endorsed, or tested it."
)

SEMANTIC_START = (
    "Its token embeddings started from the sentence embeddings that all-MiniLM-L6-v2 (Apache-2.0) gives to "
    "the texts of its tokens."
)

LIMITS = """\
- English only, lower case only; it knows the O*NET occupations of its training file and no others. For an
  occupation it never saw it writes a wrong title; its confidence is what keeps that from harm.
- Spelling is mended for words its catalogue and word list have; names it never read may be "mended" too.
- Follow-ups are learnt from one fashion shop's attributes, in a few fixed phrasings.
- Conversational rewriting is poor: a thousand turns are too few for a model of this size.
- It sees at most 512 characters of query, 160 of each context text, and three earlier queries."""


def model_card(
    config: RunConfig,
    *,
    parameters: int,
    facts: Mapping[str, object],
    reliability: Mapping[str, Mapping[str, Any]],
    observations: Sequence[Observation],
) -> str:
    """Return the card as Markdown; every number in it comes from the arguments."""
    shares = [f"| {name} | {share:.0%} | {SOURCES[name]} |" for name, share in config.mixture.items()]
    return "\n".join(
        [
            *_head(config.name),
            f"A query rewriter: a Qwen3-type decoder of {parameters:,} parameters, trained from scratch with",
            "its own tokenizer. Prompt format: `app/contracts/prompt.py`. It is made to be served by",
            "corewrite, which checks and weighs what it writes; it is not meant to replace a query.",
            "",
            "## Data",
            "",
            "| source | share of examples | what it teaches, and its terms |",
            "|---|---|---|",
            *shares,
            "",
            ATTRIBUTION,
            *(["", SEMANTIC_START] if config.semantic_start else []),
            "",
            "## Training",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            *_measures(reliability, observations),
            "## Limits",
            "",
            LIMITS,
            "",
        ]
    )


def preference_card(
    config: LoopConfig,
    parent: str,
    phases: Mapping[int, Mapping[str, Any]],
    *,
    parameters: int,
    reliability: Mapping[str, Mapping[str, Any]],
    observations: Sequence[Observation],
) -> str:
    """Return the card of a checkpoint that the loop made of the one named `parent`.

    `phases` is what `training.loop.measured_phases` returns.
    """
    names = ("reward", "improved", "worsened", "floored", "tokens", "s_pos", "s_neg", "s_rand")
    rows = [
        f"| {number} | " + " | ".join(str(phase.get(name, "")) for name in names) + " |"
        for number, phase in phases.items()
    ]
    sources = [
        f"{log.needs:,} simulated queries for {log.simulated}" if log.simulated else "logged searches"
        for log in config.logs
    ]
    return "\n".join(
        [
            *_head(config.name),
            f"The query rewriter `{parent}` ({parameters:,} parameters), trained further by preference:",
            "completions that the deployed relevance model rates high against those it rates low, by what",
            f"people clicked and skipped in {', '.join(dict.fromkeys(sources))} (Mixed Preference",
            f"Optimization, {config.phases} phases of {config.instances:,} queries). Data, terms and limits",
            "of its parent hold for it too.",
            "",
            "## Measures on queries kept apart",
            "",
            "First choices; phase 0 is the parent. Reward in nats, S as means over queries.",
            "",
            f"| phase | {' | '.join(names)} |",
            "|---|" + "---|" * len(names),
            *rows,
            "",
            *_measures(reliability, observations),
            "## Limits",
            "",
            LIMITS,
            "",
            ATTRIBUTION,
            "",
        ]
    )


def _head(name: str) -> list[str]:
    return [
        "---",
        "language: en",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [query-rewriting, search]",
        "---",
        f"# {name}",
        "",
    ]


def _measures(reliability: Mapping[str, Mapping[str, Any]], observations: Sequence[Observation]) -> list[str]:
    return [
        "## Measures on held-out data",
        "",
        "First completion of a beam of four, on queries that were not trained on (for `unseen`, of",
        "occupations that were not): share that is exactly right, case aside.",
        "",
        "| probes | count | right |",
        "|---|---|---|",
        *_right(observations),
        "",
        "Confidence, five-fold cross-fitted:",
        "",
        "| kind of rewrite | count | expected calibration error | AUROC |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {found['count']} | {found['ece']:.3f} | {found['auroc']} |"
            for kind, found in reliability.items()
        ),
        "",
        "What it does to retrieval is in the results table of the project's README.",
        "",
    ]


def _right(observations: Sequence[Observation]) -> list[str]:
    first = [observation for observation in observations if observation.first]
    rows = []
    for source in dict.fromkeys(observation.source for observation in first):
        right = [observation.right for observation in first if observation.source == source]
        rows.append(f"| {source} | {len(right)} | {sum(right) / len(right):.3f} |")
    return rows
