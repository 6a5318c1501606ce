"""A relevance model of the real architecture, small enough to train in a test; it knows letters only."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel

from training.relevance import JOINT_LAYERS, RelevanceModel, template
from training.vision import IMAGE_DIM

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop")
SIZE = 32


def tiny_model(*, dropout: float = 0.0) -> RelevanceModel:
    """One layer reads texts alone, the others pairs together; with dropout it is ready to be trained."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=SIZE,
        num_hidden_layers=JOINT_LAYERS + 1,
        num_attention_heads=4,
        intermediate_size=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="eager",
    )
    return RelevanceModel(BertModel(config, add_pooling_layer=False)).train(dropout > 0)


def tiny_tokenizer() -> Tokenizer:
    """Words at spaces, as the real one puts them together."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = template(tokenizer)
    return tokenizer


def image(seed: int) -> tuple[float, ...]:
    """What a vision tower might make of an image."""
    return tuple(np.random.default_rng(seed).normal(size=IMAGE_DIM).tolist())
