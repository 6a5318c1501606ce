"""Anchors: what the policy of the start says to searches that nobody clicked in, held against forgetting.

A log has clicks for some of what people look for. A policy that learns from those alone answers with what has
clicks more and more often, also where something else was right. An anchor is a pair of the start's own answer
with itself: DPO sees no difference, SFT keeps the answer, and BCO draws its log-ratio to the mean of all
(learning without forgetting, arXiv 1606.09282, as a pair). A copy is an answer like any other: it keeps the
policy leaving alone what is best left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from app.engines.base import Completion
from app.engines.text import read_tokenizer
from training.config import SampleConfig
from training.datasets.instances import Search
from training.mpo import PairIds
from training.policy_engine import running_engine
from training.sampling import prompt_ids, sample


def draw_anchors(
    policy: Path,
    searches: Sequence[Search],
    config: SampleConfig,
    *,
    threads: int,
    done: Callable[[], object] = lambda: None,
) -> list[PairIds]:
    """Return an anchor for each search whose answer ends within the token limit.

    Args:
        policy: a folder with the weights of the start, and its tokenizer.
        searches: any number.
        config: names the engine, and the limit.
        threads: of the CPU.
        done: called after each search.

    Raises:
        EngineError: the engine cannot answer.
    """
    tokenizer, _ = read_tokenizer(policy)
    answers = first_choices(policy, searches, config, threads=threads, done=done)
    found = []
    for search, answer in zip(searches, answers, strict=True):
        if answer.finish_reason == "stop":
            ids, logprob = list(answer.token_ids), answer.logprob
            found.append(PairIds(prompt_ids(tokenizer, search), ids, ids, logprob, logprob, margin=0.0))
    return found


def first_choices(
    policy: Path,
    searches: Sequence[Search],
    config: SampleConfig,
    *,
    threads: int,
    done: Callable[[], object] = lambda: None,
) -> list[Completion]:
    """Return what the policy likes best to say to each search; arguments as `draw_anchors` has them."""

    async def work() -> list[Completion]:
        async with running_engine(policy, config, threads=threads) as engine:
            found = await sample(engine, searches, config, seed=0, mode="greedy", done=done)
        return [answer for (answer,) in found]

    return asyncio.run(work())
