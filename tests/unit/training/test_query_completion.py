"""The query as a completion: what the policy would have to write, and how likely it is to."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from fakes import FakeEngine, FakeRelevance, completion

from app.contracts.prompt import render
from app.engines.text import read_tokenizer
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.relevance.base import Content
from training.config import RewardConfig, SampleConfig
from training.datasets.instances import Instance, Seen
from training.gate.likelihood import Tokens, likelihoods
from training.queries import with_queries
from training.rating import Rater
from training.sampler import Draw, rated

QUERIES = ("rn icu nights", "laptop")
INSTANCES = [Instance(query, (Seen(Content("d"), 1.0),), (), ()) for query in QUERIES]


def test_it_stands_behind_what_was_drawn() -> None:
    drawn = [(completion("registered nurses"),), (completion("laptops"), completion("computers"))]
    found = with_queries(DEFAULT_CHECKPOINT, INSTANCES, drawn)
    assert [tuple(one[:-1]) for one in found] == drawn
    assert [one[-1].text for one in found] == list(QUERIES)
    assert {one[-1].finish_reason for one in found} == {"stop"}


def test_its_tokens_and_likelihood_are_what_the_policy_would_have_written() -> None:
    """And none of it depends on who else is asked for."""
    tokenizer, end_id = read_tokenizer(DEFAULT_CHECKPOINT)
    for instance, (copy,) in zip(
        INSTANCES, with_queries(DEFAULT_CHECKPOINT, INSTANCES, [(), ()]), strict=True
    ):
        assert tokenizer.decode(list(copy.token_ids)) == instance.query
        assert copy.token_ids[-1] == end_id
        prompt = tuple(tokenizer.encode(render(instance.query), add_special_tokens=False).ids)
        alone = likelihoods(DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT, [Tokens(prompt, copy.token_ids)])
        assert copy.logprob == pytest.approx(-float(alone.surprisal[0]) * len(copy.token_ids), rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "with_query", "texts"),
    [
        ("sample", True, ["rn icu nights job", "rn icu nights"]),
        ("sample", False, ["rn icu nights job"]),
        ("greedy", True, ["rn icu nights job"]),
    ],
)
def test_it_is_rated_where_it_is_asked_for_and_never_among_first_choices(
    mode: Literal["sample", "greedy"], *, with_query: bool, texts: list[str]
) -> None:
    engine = FakeEngine(completions=lambda query: [completion(f"{query} job")])
    config = SampleConfig(num_generations=2, with_query=with_query)
    rater = Rater.over(RewardConfig(), FakeRelevance(), [])
    draw = Draw(DEFAULT_CHECKPOINT, 0, mode)
    (found,) = asyncio.run(rated(draw, config, engine, rater, INSTANCES[:1]))
    assert [one.completion.text for one in found] == texts
