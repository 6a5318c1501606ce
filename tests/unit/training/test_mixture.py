from __future__ import annotations

from random import Random

import pytest

from app.contracts.prompt import CONTROL_TOKENS, END, clean
from training.config import RunConfig
from training.mixture import Mixture, batches, encode
from training.tokenizer import BREAK, breakable, train_tokenizer, with_breaks


def test_batches_are_a_function_of_seed_and_pool(mini_config: RunConfig) -> None:
    mixture = Mixture(mini_config.mixture, mini_config.data_dir)
    tokenizer = train_tokenizer(["red laptop bag"], 300)

    def pool(seed: int, number: int) -> list[list[list[int]]]:
        made = batches(mixture, tokenizer, seed=seed, pool=number, batch_tokens=3000, max_tokens=200)
        return [[item.prompt + item.target for item in batch] for batch in made]

    first = pool(1, 0)
    assert first == pool(1, 0)
    assert first != pool(1, 1)
    assert first != pool(2, 0)
    assert all(max(map(len, batch)) * len(batch) <= 3000 for batch in first)


def test_what_is_encoded_is_what_engines_see_and_reads_back(mini_config: RunConfig) -> None:
    mixture = Mixture(mini_config.mixture, mini_config.data_dir)
    tokenizer = train_tokenizer(mixture.texts(1), 400)
    rng = Random(5)
    examples = [mixture.draw(rng) for _ in range(50)]
    encoded = encode(tokenizer, examples, break_ratio=0.5, rng=rng)
    for example, item in zip(examples, encoded, strict=True):
        assert item.target[-1] == CONTROL_TOKENS.index(END)
        assert tokenizer.decode(item.target) == clean(example.target, 512).lower()


def test_an_unknown_source_is_an_error(mini_config: RunConfig) -> None:
    with pytest.raises(KeyError, match="poetry"):
        Mixture({"poetry": 1.0}, mini_config.data_dir)


@pytest.mark.parametrize("text", ["rtx 2060", "a1b22c", "naïve café", "日本 語", "women's 9.5", "x\u00a0y"])
def test_the_tokenizer_loses_nothing_but_case_and_width(text: str) -> None:
    tokenizer = train_tokenizer(["some words"], 300)
    folded = clean(text, 100).lower()
    assert tokenizer.decode(tokenizer.encode(clean(text, 100)).ids) == folded


def test_control_tokens_have_the_lowest_ids_in_order() -> None:
    tokenizer = train_tokenizer(["some words"], 300)
    assert [tokenizer.token_to_id(token) for token in CONTROL_TOKENS] == list(range(len(CONTROL_TOKENS)))


def test_broken_words_are_the_same_text_in_other_tokens() -> None:
    words = ["registered", "nurse", "headphones", "tv", "2060"]
    tokenizer = train_tokenizer(words * 50, 330)
    text = " ".join(words)
    broken = with_breaks(text, 1.0, Random(1))
    assert broken.count(BREAK) == 4  # "tv" is too short
    assert broken == with_breaks(text, 1.0, Random(1)) != with_breaks(text, 1.0, Random(2))
    assert with_breaks(text, 0.0, Random(1)) == text
    breaking = breakable(tokenizer)
    assert breaking.encode(text).ids == tokenizer.encode(text).ids != breaking.encode(broken).ids
    assert tokenizer.decode(breaking.encode(broken).ids) == text
