"""Entropy, surprisal and KL, against the same sums in plain arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_policy import write_policy
from transformers import AutoModelForCausalLM

from training.gate.likelihood import Tokens, likelihoods

WRITTEN = [
    Tokens((5, 6, 7), (10, 11, 1)),
    Tokens((8,), (1,)),
    Tokens((9, 10, 11, 12, 13, 14), (20, 21, 22, 23, 1)),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return (
        write_policy(tmp_path_factory.mktemp("one"), seed=1),
        write_policy(tmp_path_factory.mktemp("two"), seed=2),
    )


@torch.no_grad()
def rows(folder: Path, one: Tokens) -> list[list[float]]:
    """The distribution before each token of the completion, alone and unpadded."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logits = model(input_ids=torch.tensor([[*one.prompt, *one.completion]])).logits[0].double()
    start = len(one.prompt) - 1
    found: list[list[float]] = logits[start : start + len(one.completion)].softmax(-1).tolist()
    return found


def test_they_are_the_sums_they_are_named_for(policies: tuple[Path, Path]) -> None:
    found = likelihoods(*policies, WRITTEN)
    for place, one in enumerate(WRITTEN):
        ps, qs = (rows(folder, one) for folder in policies)
        tops = [sorted(p)[-10:] for p in ps]
        entropy = [-sum(x / sum(top) * math.log(x / sum(top)) for x in top) for top in tops]
        surprisal = [-math.log(q[token]) for q, token in zip(qs, one.completion, strict=True)]
        kl = [
            sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) for p, q in zip(ps, qs, strict=True)
        ]
        assert found.entropy[place] == pytest.approx(np.mean(entropy), abs=1e-5)
        assert found.surprisal[place] == pytest.approx(np.mean(surprisal), abs=1e-5)
        assert found.kl[place] == pytest.approx(np.mean(kl), abs=1e-5)


def test_a_policy_is_no_way_from_itself(policies: tuple[Path, Path]) -> None:
    found = likelihoods(policies[0], policies[0], WRITTEN)
    assert np.abs(found.kl).max() == 0.0
    assert (found.entropy <= math.log(10) + 1e-9).all()


def test_other_vocabularies_cannot_be_compared(policies: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_policy(tmp_path, vocab_size=5000)
    with pytest.raises(ValueError, match="6000 and 5000"):
        likelihoods(policies[0], other, WRITTEN)
    assert likelihoods(policies[0], policies[1], []).kl.size == 0
