"""A second checkpoint of known, different answers, made from another in a second: for drills of swaps.

The rows of the embedding are exchanged in pairs, word against word, so that the model reads and writes other
words; golden prompts and manifest are recorded anew, as a trainer would. It is a model like any other, of
the same size and speed, and no good.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.contracts.manifest import MANIFEST_NAME, GoldenPrompt
from app.engines.base import GenerationRequest
from app.engines.embedded import EmbeddedEngine
from app.registry.checkpoint import Checkpoint, describe_file, load_checkpoint

WEIGHTS = "model.safetensors"
EMBEDDING = "model.embed_tokens.weight"
SPACE = "Ġ"  # how byte-level vocabularies write a space


def make_sibling(parent: Checkpoint, folder: Path, *, seed: int = 1, ratio: float = 1.0) -> Checkpoint:
    """Write it into `folder`, whose name becomes its id; `ratio` of the words change places."""
    shutil.copytree(parent.path, folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(
        index for token, index in vocabulary.items() if token.startswith(SPACE) and token[1:].isalpha()
    )
    chosen = random.Random(seed).sample(words, int(len(words) * ratio) // 2 * 2)
    _exchange_rows(folder / WEIGHTS, list(zip(chosen[::2], chosen[1::2], strict=True)))
    return publish(parent, folder)


def publish(parent: Checkpoint, folder: Path) -> Checkpoint:
    """Vouch for the changed copy of `parent` in `folder`, as a trainer would: golden prompts and manifest."""
    golden = asyncio.run(_record(parent, folder))
    _write_manifest(parent, folder, golden)
    return load_checkpoint(folder)


def _exchange_rows(path: Path, pairs: list[tuple[int, int]]) -> None:
    """Exchange rows of the embedding inside a safetensors file: 8 bytes of length, JSON header, tensors."""
    data = bytearray(path.read_bytes())
    (header_bytes,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + header_bytes])[EMBEDDING]
    begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
    row_bytes = (end - begin) // entry["shape"][0]
    for one, other in pairs:
        a, b = (slice(begin + row * row_bytes, begin + (row + 1) * row_bytes) for row in (one, other))
        data[a], data[b] = data[b], data[a]
    path.write_bytes(data)


async def _record(parent: Checkpoint, folder: Path) -> tuple[GoldenPrompt, ...]:
    engine = EmbeddedEngine(folder, weights_digest="0" * 64)
    await engine.start()
    try:
        golden = []
        for prompt in parent.manifest.golden:
            request = GenerationRequest(prompt=prompt.prompt, mode="greedy", max_tokens=24)
            generation = await engine.generate(request)
            golden.append(GoldenPrompt(prompt=prompt.prompt, token_ids=generation.completions[0].token_ids))
    finally:
        await engine.close()
    return tuple(golden)


def _write_manifest(parent: Checkpoint, folder: Path, golden: tuple[GoldenPrompt, ...]) -> None:
    manifest = parent.manifest.model_copy(
        update={
            "checkpoint_id": folder.name,
            "parent": parent.weights_digest,
            "files": {name: describe_file(folder / name) for name in parent.manifest.files},
            "golden": golden,
        }
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
