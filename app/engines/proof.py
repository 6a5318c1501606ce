"""Whether an engine computes the weights it was given: golden prompts, answered token by token.

Loading is not believed. Engines have been seen to return from a reload without error and with half of the
old weights; what the trainer recorded in the manifest tells.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.engines.base import GenerationRequest
from app.errors import ProofError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.contracts.manifest import GoldenPrompt
    from app.engines.base import Engine


async def prove(engine: Engine, golden: Sequence[GoldenPrompt], *, weights_digest: str) -> None:
    """Return where the engine gives the recorded tokens for every prompt.

    Raises:
        ProofError: it gives others, or names other weights; the message says which prompt.
        EngineError: it does not answer.
    """
    answers = await asyncio.gather(*(_greedy(engine, prompt) for prompt in golden))
    for prompt, (token_ids, digest) in zip(golden, answers, strict=True):
        if digest != weights_digest:
            raise ProofError(f"the engine names the weights {digest}, not {weights_digest}")
        if token_ids != prompt.token_ids:
            raise ProofError(
                f"golden prompt {prompt.prompt!r}: the engine writes {list(token_ids)}, the manifest has "
                f"{list(prompt.token_ids)}: these are not the weights that were trained, or the engine "
                "computes them in too low a precision (vLLM: try dtype float32)"
            )


async def tells_apart(engine: Engine, golden: Sequence[GoldenPrompt]) -> bool:
    """Whether `engine` answers any of these prompts with other tokens than recorded; raises EngineError.

    One after the other and no more than needed: the engine has users meanwhile.
    """
    for prompt in golden:
        token_ids, _ = await _greedy(engine, prompt)
        if token_ids != prompt.token_ids:
            return True
    return False


async def _greedy(engine: Engine, prompt: GoldenPrompt) -> tuple[tuple[int, ...], str]:
    request = GenerationRequest(prompt=prompt.prompt, mode="greedy", max_tokens=max(1, len(prompt.token_ids)))
    generation = await engine.generate(request)
    if not generation.completions:
        raise ProofError(f"golden prompt {prompt.prompt!r}: the engine returns no completion")
    return generation.completions[0].token_ids, generation.weights_digest
