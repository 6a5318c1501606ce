"""Between text and token ids, the same for every engine that runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from app.contracts.prompt import CONTROL_TOKENS, END
from app.engines.base import Completion, GenerationRequest
from app.errors import CheckpointError, EngineFailedError, InputTooLongError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from app.engines.decoding import Hypothesis

_MAX_BREAKS = 8  # what breaking one up may spell anew; nobody has seen a second


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
    """Return the prompt's token ids; raises InputTooLongError where the completion would not fit behind.

    Of the tokens that a text can spell, only those of the prompt's own language are among them: others that
    the vocabulary has, such as `<tool_call>`, are broken up.
    """
    prompt = _without_foreign(tokenizer, request.prompt)
    if len(prompt) + request.max_tokens > max_model_tokens:
        raise InputTooLongError(
            f"{len(prompt)} prompt tokens and {request.max_tokens} to come: over {max_model_tokens}"
        )
    return prompt


def _without_foreign(tokenizer: Tokenizer, text: str) -> list[int]:
    added = tokenizer.get_added_tokens_decoder()
    foreign = {token for token, entry in added.items() if entry.content not in CONTROL_TOKENS}
    for _ in range(_MAX_BREAKS):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids: list[int] = encoding.ids
        if foreign.isdisjoint(ids):
            return ids
        # From the last to the first, so that the places of those before stay what they are.
        for token, (begin, end) in reversed(list(zip(ids, encoding.offsets, strict=True))):
            if token in foreign:
                spelled = text[begin:end].lstrip()
                broken = f"{spelled[0]} {spelled[1:]}" if len(spelled) > 1 else ""
                text = text[: end - len(spelled)] + broken + text[end:]
    raise EngineFailedError("the vocabulary's own tokens cannot be kept out of the prompt")


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
