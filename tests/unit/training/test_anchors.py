"""Anchors: the start's own answers, each set against itself, hold what the pairs say nothing of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up_pairs import logprobs
from tiny_policy import write_policy
from transformers import AutoModelForCausalLM

from app.contracts.prompt import Context, Item, render
from app.engines.text import read_tokenizer
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from training.anchors import draw_anchors
from training.config import MpoConfig, SampleConfig
from training.datasets.instances import Search
from training.mpo import make_trainer

SEARCHES = (Search("rn icu nights"), Search("laptop"), Search("in blue", Context(last_item=Item("Shoe"))))


def test_an_anchor_is_the_answer_with_itself_in_its_context() -> None:
    tokenizer, _ = read_tokenizer(DEFAULT_CHECKPOINT)
    anchors = draw_anchors(DEFAULT_CHECKPOINT, SEARCHES, SampleConfig(), threads=1)
    for search, anchor in zip(SEARCHES, anchors, strict=True):
        prompt = render(search.query, search.context)
        assert anchor.prompt_ids == tokenizer.encode(prompt, add_special_tokens=False).ids
        assert anchor.chosen_ids == anchor.rejected_ids
        assert anchor.chosen_ids[-1] == 1
        assert anchor.margin == 0.0
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_CHECKPOINT, dtype=torch.float32)
    first = anchors[0]
    expected = sum(logprobs(model, first.prompt_ids, first.chosen_ids))
    assert first.ref_chosen_logps == first.ref_rejected_logps == pytest.approx(expected, abs=1e-3)
    assert "nurse" in tokenizer.decode(first.chosen_ids)


def test_an_answer_that_does_not_end_is_no_anchor(tmp_path: Path) -> None:
    assert draw_anchors(write_policy(tmp_path), SEARCHES, SampleConfig(max_tokens=1), threads=1) == []


def test_what_is_anchored_is_not_forgotten(tmp_path: Path) -> None:
    """SFT and BCO draw a policy that went astray back to its anchors, where DPO alone sees no difference."""
    anchors = draw_anchors(DEFAULT_CHECKPOINT, SEARCHES, SampleConfig(), threads=1)
    config = MpoConfig(batch=4, learning_rate=1e-3, bf16=False, warmup_ratio=0.0)

    def kept(weights: MpoConfig, steps: int) -> float:
        trainer = make_trainer(DEFAULT_CHECKPOINT, anchors * steps, weights, tmp_path, seed=1)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.mul_(0.9)
        trainer.train()
        return sum(sum(logprobs(trainer.model, one.prompt_ids, one.chosen_ids)) for one in anchors)

    alone = config.model_copy(update={"bco_weight": 0.0, "sft_weight": 0.0})
    assert kept(config, 8) > kept(alone, 8) + 0.5
