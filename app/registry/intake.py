"""A Hugging Face folder becomes a checkpoint: what may not be loaded is refused, what is missing is added.

Added are the golden prompts' tokens, as the embedded engine computes them, and, where nobody has fitted a
calibration, the model's own probability as its confidence.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.contracts.confidence import CALIBRATION_NAME, Calibration
from app.contracts.manifest import (
    COMPUTED_BY,
    INERT,
    MANIFEST_NAME,
    MANIFEST_VERSION,
    DataWindow,
    GoldenPrompt,
    Manifest,
)
from app.contracts.prompt import CONTROL_TOKENS, PROMPT_VERSION, Context, Item, render
from app.engines.base import GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.engines.qwen3_files import read_config
from app.engines.text import read_tokenizer
from app.errors import CheckpointError
from app.registry.checkpoint import MAX_HEADER_BYTES, describe_file, require_safetensors

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
CODE = (".py", ".so")
THRESHOLD = 0.02
"""Confidence below which a rewrite is withheld. Low, for a doubtful rewrite weighs next to nothing anyway,
and several doubtful ones that agree in a word help; `training.tune` finds withholding more to cost more on
known occupations than it saves on others."""

GOLDEN_TOKENS = 24
GOLDEN: Sequence[str] = (
    render("rn icu nights"),
    render("Truck Hopper"),
    render("bluetoth headphones"),
    render("laptop"),
    render(
        "in blue", Context(last_item=Item("Nike Men Black Running Shoes", "Men, Sports Shoes, Black, Sports"))
    ),
    render("Is it treatable?", Context(previous_queries=("What is throat cancer?",))),
)
"""Prompts whose tokens every manifest records."""


def take_in(
    source: Path,
    folder: Path,
    *,
    checkpoint_id: str,
    calibration: Path | None = None,
    parent: str | None = None,
    data_window: DataWindow | None = None,
) -> None:
    """Write a checkpoint folder (made anew) from the folder of a Hugging Face model.

    Args:
        source: has config.json, model.safetensors and tokenizer.json of a Qwen3 decoder whose tokenizer knows
            the control tokens of `app.contracts.prompt`.
        folder: where to.
        checkpoint_id: its name.
        calibration: a `calibration.json` that was fitted for it. None: one in `source`, or else the
            model's own probability.
        parent: address of the checkpoint it was made from.
        data_window: of what it has seen.

    Raises:
        CheckpointError: something in `source` may not be loaded, is missing, or is of another architecture.
        EngineError: the embedded engine cannot compute it.
    """
    names = _inert_files(source)
    require_safetensors(source / "model.safetensors")
    read_config(source)
    tokenizer, _ = read_tokenizer(source)
    if unknown := [token for token in CONTROL_TOKENS if tokenizer.token_to_id(token) is None]:
        raise CheckpointError(
            f"{source / 'tokenizer.json'}: has no token {unknown[0]}: the model was not trained on the "
            "prompts that are rendered here (app/contracts/prompt.py); train it with `corewrite train`"
        )
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name in names:
            shutil.copyfile(source / name, part / name)
        if calibration is not None:
            shutil.copyfile(calibration, part / CALIBRATION_NAME)
        elif CALIBRATION_NAME not in names:
            text = Calibration.own_probability(THRESHOLD).to_json() + "\n"
            (part / CALIBRATION_NAME).write_text(text, encoding="utf-8")
        manifest = Manifest(
            version=MANIFEST_VERSION,
            checkpoint_id=checkpoint_id,
            architecture="Qwen3ForCausalLM",
            prompt_version=PROMPT_VERSION,
            parameters=_parameters(part / "model.safetensors"),
            parent=parent,
            files={file.name: describe_file(file) for file in sorted(part.iterdir())},
            golden=asyncio.run(_answers(part)),
            training={"imported_from": source.name},
            data_window=data_window,
        )
        (part / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _inert_files(source: Path) -> list[str]:
    """Names of the files to copy. Licences, pictures and hidden files stay behind."""
    if not source.is_dir():
        raise CheckpointError(f"{source}: no such folder")
    found = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    for path in found:
        if path.name.endswith(PICKLES + CODE):
            raise CheckpointError(
                f"{path}: may run code when it is loaded, and is not taken in; save the model with "
                "`save_pretrained(..., safe_serialization=True)` into a folder of its own"
            )
        if path.is_symlink():
            raise CheckpointError(
                f"{path}: a symbolic link; copy the folder with `cp -rL` and import the copy"
            )
    names = [path.name for path in found if path.is_file() and path.name.endswith(INERT)]
    if missing := [name for name in COMPUTED_BY if name not in names]:
        shards = " (weights in several files: save them with a larger `max_shard_size`)"
        sharded = missing[0] == "model.safetensors" and f"{missing[0]}.index.json" in names
        raise CheckpointError(f"{source / missing[0]}: missing{shards if sharded else ''}")
    return [name for name in names if name != MANIFEST_NAME]


def _parameters(weights: Path) -> int:
    """Count them by the shapes in the header of a safetensors file."""
    with weights.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
            return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{weights}: its header is not that of safetensors: {error!r}") from error


async def _answers(folder: Path) -> tuple[GoldenPrompt, ...]:
    engine = EmbeddedEngine(folder, weights_digest="0" * 64, threads=os.cpu_count() or 1)
    await engine.start()
    try:
        found = []
        for prompt in GOLDEN:
            request = GenerationRequest(prompt=prompt, mode="greedy", max_tokens=GOLDEN_TOKENS)
            generation = await engine.generate(request)
            found.append(GoldenPrompt(prompt=prompt, token_ids=generation.completions[0].token_ids))
        return tuple(found)
    finally:
        await engine.close()
