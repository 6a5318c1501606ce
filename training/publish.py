"""From a trained model to a checkpoint folder: weights, tokenizer, calibration, golden prompts, manifest.

The folder is a Hugging Face model folder, so that vLLM and transformers load it as it is. Everything that
is derived from the weights is derived from the bfloat16 weights that are stored, not from those trained.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from app.contracts.confidence import CALIBRATION_NAME
from app.contracts.manifest import (
    MANIFEST_NAME,
    MANIFEST_VERSION,
    DataWindow,
    GoldenPrompt,
    Manifest,
    address_of,
)
from app.contracts.prompt import CONTROL_TOKENS, END, PAD, PROMPT_VERSION
from app.engines.embedded import EmbeddedEngine
from app.registry.checkpoint import describe_file
from app.registry.intake import GOLDEN, GOLDEN_TOKENS, THRESHOLD
from training.calibrate import Observation, Probe, cross_fitted, fit, observe
from training.reliability import Reliability, reliability

TELLING = 3


class Card(Protocol):
    """Writes the model card."""

    def __call__(
        self, *, parameters: int, reliability: Reliability, observations: Sequence[Observation]
    ) -> str:
        """Return the card as Markdown."""


def publish(
    model: Qwen3ForCausalLM,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    checkpoint_id: str,
    max_tokens: int,
    training: Mapping[str, object],
    card: Card,
    probes: Sequence[Probe],
    parent: Path | None = None,
    prompts: Sequence[str] = (),
    data_window: DataWindow | None = None,
    reward_version: str | None = None,
) -> Reliability:
    """Write a checkpoint into `folder` (made anew) and return how reliable its confidence is.

    Args:
        model: what was trained.
        tokenizer: its own.
        folder: where to.
        checkpoint_id: its name.
        max_tokens: the model's window.
        training: how it was made, for the manifest.
        card: writes `README.md`.
        probes: what its confidence is fitted on.
        parent: the checkpoint that it was made from.
        prompts: rendered ones. The first few that the parent answers otherwise become golden ones, beside
            those that all checkpoints have: whoever swaps can tell the two apart.
        data_window: when what it has learnt from was logged; None: it has not learnt from logs.
        reward_version: names the reward that it was trained with.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    stored = _write_model(model, part)
    _write_tokenizer(tokenizer, max_tokens, part)
    observations = asyncio.run(_observe(part, probes))
    (part / CALIBRATION_NAME).write_text(fit(observations, THRESHOLD).to_json() + "\n", encoding="utf-8")
    report = reliability(observations, cross_fitted(observations))
    text = card(parameters=stored.num_parameters(), reliability=report, observations=observations)
    (part / "README.md").write_text(text, encoding="utf-8")
    golden = [_golden(stored, tokenizer, prompt) for prompt in GOLDEN]
    if parent is not None:
        golden += _telling(stored, parent, tokenizer, prompts)
    names = sorted(file.name for file in part.iterdir())
    manifest = Manifest(
        version=MANIFEST_VERSION,
        checkpoint_id=checkpoint_id,
        architecture="Qwen3ForCausalLM",
        prompt_version=PROMPT_VERSION,
        parameters=stored.num_parameters(),
        parent=None if parent is None else address_of((parent / MANIFEST_NAME).read_bytes()),
        files={name: describe_file(part / name) for name in names},
        golden=tuple(golden),
        training=training,
        data_window=data_window,
        reward_version=reward_version,
    )
    (part / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return report


def _write_model(model: Qwen3ForCausalLM, folder: Path) -> Qwen3ForCausalLM:
    # Switched off for training; who loads the checkpoint would decode without a cache of keys and values.
    model.config.use_cache = True
    if model.generation_config is not None:
        model.generation_config.use_cache = True
    model.to(device="cpu", dtype=torch.bfloat16).save_pretrained(folder)
    return model.float().eval()


def _write_tokenizer(tokenizer: Tokenizer, max_tokens: int, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [token for token in CONTROL_TOKENS if token not in (END, PAD)],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


async def _observe(folder: Path, probes: Sequence[Probe]) -> list[Observation]:
    engine = EmbeddedEngine(folder, weights_digest="0" * 64, threads=torch.get_num_threads(), max_queue=1024)
    await engine.start()
    try:
        return await observe(engine, probes)
    finally:
        await engine.close()


def _telling(
    model: Qwen3ForCausalLM, parent: Path, tokenizer: Tokenizer, prompts: Sequence[str]
) -> list[GoldenPrompt]:
    """The first TELLING of the prompts that model and parent answer differently."""
    before = Qwen3ForCausalLM.from_pretrained(parent, dtype=torch.float32).eval()
    found: list[GoldenPrompt] = []
    for prompt in prompts:
        if len(found) == TELLING:
            break
        answer = _golden(model, tokenizer, prompt)
        if answer != _golden(before, tokenizer, prompt):
            found.append(answer)
    return found


@torch.no_grad()
def _golden(model: Qwen3ForCausalLM, tokenizer: Tokenizer, prompt: str) -> GoldenPrompt:
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=GOLDEN_TOKENS, do_sample=False
    )
    return GoldenPrompt(prompt=prompt, token_ids=tuple(out[0, ids.shape[1] :].tolist()))
