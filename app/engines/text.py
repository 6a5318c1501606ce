"""Between text and token ids, the same for every engine that runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from app.contracts.prompt import END
from app.engines.base import Completion, GenerationRequest
from app.errors import CheckpointError, InputTooLongError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from app.engines.decoding import Hypothesis


def read_tokenizer(checkpoint_dir: Path) -> tuple[Tokenizer, int]:
    """Return the tokenizer of a checkpoint and the id of its end token; raises CheckpointError."""
    path = checkpoint_dir / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: {error}") from error
    end_id: int | None = tokenizer.token_to_id(END)
    if end_id is None:
        raise CheckpointError(f"{path}: {END} is not in the vocabulary")
    return tokenizer, end_id


def encode_prompt(tokenizer: Tokenizer, request: GenerationRequest, *, max_model_tokens: int) -> list[int]:
    """Return the prompt's token ids; raises InputTooLongError where the completion would not fit behind."""
    prompt: list[int] = tokenizer.encode(request.prompt, add_special_tokens=False).ids
    if len(prompt) + request.max_tokens > max_model_tokens:
        raise InputTooLongError(
            f"{len(prompt)} prompt tokens and {request.max_tokens} to come: over {max_model_tokens}"
        )
    return prompt


def completions_of(tokenizer: Tokenizer, hypotheses: Iterable[Hypothesis]) -> tuple[Completion, ...]:
    """Return the hypotheses with their text, in order; control tokens leave no trace in it."""
    return tuple(
        Completion(
            text=tokenizer.decode(list(hypothesis.token_ids), skip_special_tokens=True),
            token_ids=hypothesis.token_ids,
            logprob=hypothesis.logprob,
            finish_reason=hypothesis.finish,
        )
        for hypothesis in hypotheses
    )
