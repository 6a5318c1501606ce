"""The tokenizer trained here: byte-level BPE over lower-cased NFKC text, digits one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from random import Random

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from app.contracts.prompt import CONTROL_TOKENS

# A word with the space before it; one digit; a run of punctuation; white space that is left.
PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
# A private-use character: where `breakable` finds it, no token goes across.
BREAK = "\ue000"
SHORTEST_BROKEN = 4


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer of `vocab_size` tokens; control tokens take the lowest ids, in their own order.

    Lower-casing makes "RN" and "rn" one word, so that a small model learns each title once. All 256 bytes
    are in the vocabulary: every text can be encoded.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Sequence(
        # A leading space makes a word the same token at the start of a text as within it.
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Prepend(" ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # The space that the normaliser put before the first word is taken off again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def with_breaks(text: str, ratio: float, rng: Random) -> str:
    """Return `text` with one break inside each of a share of its words, for a tokenizer made by `breakable`.

    The model then sees a word in more than one segmentation, as with BPE dropout (Provilkov et al., ACL 2020,
    arXiv 1910.13267), and learns what its parts say. The draw is the generator's, so a run can be repeated.
    """
    return " ".join(
        word[:place] + BREAK + word[place:]
        if len(word) >= SHORTEST_BROKEN and rng.random() < ratio and (place := rng.randrange(1, len(word)))
        else word
        for word in text.split()
    )


def breakable(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that encodes as `tokenizer` does, but splits at breaks and drops them."""
    breaking = copy.deepcopy(tokenizer)
    breaking.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(BREAK, behavior="removed"), tokenizer.pre_tokenizer]
    )
    return breaking
