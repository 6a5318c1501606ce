"""What two policies make of the same tokens: entropy, surprisal, how far one has gone from the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

Floats = NDArray[np.float64]

TOP = 10
BATCH = 32


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt and what was written after it, the end token included, as ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Means over the positions of each completion, [completions], in nats.

    Args:
        entropy: of the TOP most likely next tokens, renormalised, under the first policy.
        surprisal: -log p of what was written, under the second one.
        kl: from the second to the first: sum p log (p / q) over the whole vocabulary.
    """

    entropy: Floats
    surprisal: Floats
    kl: Floats


@torch.no_grad()
def likelihoods(policy: Path, reference: Path, written: Sequence[Tokens]) -> Likelihoods:
    """Read completions with both policies.

    Args:
        policy: folder of the one that wrote them.
        reference: folder of the other, with the same vocabulary.
        written: with at least one token each.

    Raises:
        ValueError: the vocabularies differ in size: their distributions cannot be compared.
    """
    models = [_model(folder) for folder in (policy, reference)]
    sizes = [model.config.vocab_size for model in models]
    if sizes[0] != sizes[1]:
        raise ValueError(f"vocabularies of {sizes[0]} and {sizes[1]} tokens cannot be compared")
    rows: list[tuple[float, float, float]] = []
    for batch in _batches(written):
        first, second = (_next_token_logprobs(model, batch) for model in models)
        for one, p, q in zip(batch, first, second, strict=True):
            top = p.topk(min(TOP, p.shape[-1])).values.log_softmax(-1)
            ids = torch.tensor(one.completion, device=q.device).unsqueeze(-1)
            rows.append(
                (
                    float(-(top.exp() * top).sum(-1).mean()),
                    float(-q.gather(-1, ids).mean()),
                    float((p.exp() * (p - q)).sum(-1).mean()),
                )
            )
    entropy, surprisal, kl = np.array(rows, np.float64).reshape(-1, 3).T
    return Likelihoods(entropy, surprisal, kl)


def _model(folder: Path) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval()


def _batches(written: Sequence[Tokens]) -> Iterator[Sequence[Tokens]]:
    return (written[start : start + BATCH] for start in range(0, len(written), BATCH))


def _next_token_logprobs(model: Any, batch: Sequence[Tokens]) -> list[torch.Tensor]:
    """Log-probabilities before each token of each completion, [its tokens, vocabulary], in float64."""
    lines = [[*one.prompt, *one.completion] for one in batch]
    longest = max(map(len, lines))
    device = next(model.parameters()).device
    # Padding stands behind what is read, so that no mask is needed for what lies before.
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in lines], device=device)
    mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in lines], device=device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    return [
        logits[row, len(one.prompt) - 1 : len(one.prompt) + len(one.completion) - 1].double().log_softmax(-1)
        for row, one in enumerate(batch)
    ]
