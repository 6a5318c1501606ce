"""A tiny random Qwen3-type checkpoint, and the reference implementation's answers on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from app.contracts.prompt import CONTROL_TOKENS, END, PAD, Context, Item, render
from app.engines.embedded import EmbeddedEngine

if TYPE_CHECKING:
    from pathlib import Path

TITLES = (
    "registered nurse", "rn icu nights", "machinist", "staff accountant", "truck driver, class a",
    "senior software engineer", "barista", "school bus monitor", "welder 2nd shift", "hr generalist",
    "certified nursing assistant", "line cook", "data entry clerk", "forklift operator", "civil engineer",
    "pastry chef", "dental hygienist", "warehouse associate", "tax preparer", "roofing foreman",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """The checkpoint in transformers, float32, one thread."""

    model: Any
    tokenizer: Tokenizer
    end_id: int

    def prompt_ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return ids

    def generate(self, prompt: str, **kwargs: Any) -> Any:
        """`model.generate` from token ids, with nothing of the checkpoint's own defaults."""
        ids = torch.tensor([self.prompt_ids(prompt)])
        with torch.no_grad():
            return self.model.generate(
                ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True, **kwargs
            )

    def logprob(self, prompt: str, token_ids: tuple[int, ...]) -> float:
        """Sum of ln p of `token_ids` after the prompt, from one forward pass."""
        ids = self.prompt_ids(prompt)
        with torch.no_grad():
            logits = self.model(torch.tensor([ids + list(token_ids)])).logits[0, len(ids) - 1 : -1]
        return float(logits.double().log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None]).sum())


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Forty prompts of 4 to 60 tokens, half of them with context."""
    context = Context(Item("Blue cotton shirt", "men, regular fit"), ("nurse", "night shift nurse"))
    return [render(title) for title in TITLES] + [render(title, context) for title in TITLES]


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, hidden 64, four heads over two key-value heads, bfloat16, the same weights every time."""
    folder = tmp_path_factory.mktemp("tiny-qwen3")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TITLES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end_id = tokenizer.token_to_id(END)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=128,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=end_id,
            pad_token_id=tokenizer.token_to_id(PAD),
        )
    )
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        # The end token resembles many others, so that completions end now and then.
        embeddings[end_id] = embeddings[20:60].sum(0) * 0.35
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference(checkpoint_dir: Path) -> Reference:
    torch.set_num_threads(1)
    model = Qwen3ForCausalLM.from_pretrained(checkpoint_dir, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint_dir / "tokenizer.json"))
    return Reference(model, tokenizer, tokenizer.token_to_id(END))


@pytest.fixture
def engine(checkpoint_dir: Path) -> EmbeddedEngine:
    """An engine that is not started; `asyncio.run(with_engine(...))` starts and closes it."""
    return EmbeddedEngine(
        checkpoint_dir, weights_digest="d" * 64, threads=1, max_batch=12, max_queue=64, max_model_tokens=128
    )
