"""The query itself as one completion more, whether or not the policy draws it: is leaving it alone worth it?

A policy that has learnt to rewrite hardly ever draws a copy, and what is never drawn is never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.engines.base import Completion
from app.engines.text import read_tokenizer
from training.datasets.instances import Instance
from training.gate.likelihood import Tokens, likelihoods
from training.sampling import prompt_ids


def with_queries(
    policy: Path, instances: Sequence[Instance], drawn: Sequence[tuple[Completion, ...]]
) -> list[tuple[Completion, ...]]:
    """Return the completions of each instance with its query behind them, as `policy` would have written it.

    Args:
        policy: folder of the one that has drawn them; says how likely the query is.
        instances: any number.
        drawn: of each.
    """
    tokenizer, end_id = read_tokenizer(policy)
    copies = [
        Tokens(
            tuple(prompt_ids(tokenizer, instance)),
            (*tokenizer.encode(instance.query, add_special_tokens=False).ids, end_id),
        )
        for instance in instances
    ]
    surprisal = likelihoods(policy, policy, copies).surprisal
    return [
        (*completions, Completion(instance.query, copy.completion, -len(copy.completion) * mean, "stop"))
        for instance, completions, copy, mean in zip(
            instances, drawn, copies, surprisal.tolist(), strict=True
        )
    ]
