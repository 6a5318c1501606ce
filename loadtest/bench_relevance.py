"""Pairs a second of the relevance model's finerank head, beside sentence-transformers' CrossEncoder.

    python loadtest/bench_relevance.py --documents CORPUS.jsonl --relevance DIR --json OUT.json

Both run in this process, in turn, round after round, on the same threads, and read the same pairs from text.
The CrossEncoder has the encoder's weights as the graph has them, widened from 8 bits, and a head of the same
size in its own place, on the first token. Both sort by length. Also: the latency of one query's candidates.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.relevance.base import Content
from app.relevance.model import OnnxRelevance

QUERIES = ("wireless headset", "intensive care nurse", "blue shirt for men", "hp laser printer")
CANDIDATES = 100


def widened(graph: Path) -> dict[str, Any]:
    """The encoder's weights under the names of `BertModel`."""
    import onnx  # noqa: PLC0415 - seconds to import, as all below
    import torch  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(graph).graph.initializer}

    def matrix(name: str) -> np.ndarray[Any, Any]:
        return (arrays[f"{name}_codes"].astype(np.float32) * arrays[f"{name}_scales"]).T

    found = {
        "embeddings.word_embeddings.weight": arrays["word_codes"] * arrays["word_scales"],
        "embeddings.position_embeddings.weight": arrays["positions"],
        "embeddings.token_type_embeddings.weight": arrays["types"],
    }
    found |= {name.removeprefix("bert."): value for name, value in arrays.items() if name.startswith("bert.")}
    for i in range(sum(name.startswith("qkv_") and name.endswith("_codes") for name in arrays)):
        prefix = f"encoder.layer.{i}"
        parts = zip(
            ("query", "key", "value"),
            np.split(matrix(f"qkv_{i}"), 3),
            np.split(arrays[f"qkv_{i}_bias"], 3),
            strict=True,
        )
        for part, weight, bias in parts:
            found[f"{prefix}.attention.self.{part}.weight"] = weight
            found[f"{prefix}.attention.self.{part}.bias"] = bias
        for ours, theirs in (
            (f"attention_{i}_linear", "attention.output.dense"),
            (f"up_{i}", "intermediate.dense"),
            (f"output_{i}_linear", "output.dense"),
        ):
            found[f"{prefix}.{theirs}.weight"] = matrix(ours)
            found[f"{prefix}.{theirs}.bias"] = arrays[f"{ours}_bias"]
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in found.items()}


def cross_encoder(folder: Path, relevance: Path, heads: int) -> Any:
    """A CrossEncoder with these weights, written to `folder` as sentence-transformers reads it."""
    from sentence_transformers import CrossEncoder  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast  # noqa: PLC0415

    weights = widened(relevance / "model.onnx")
    size = weights["embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=size[0],
        hidden_size=size[1],
        num_hidden_layers=sum(name.endswith("intermediate.dense.bias") for name in weights),
        num_attention_heads=heads,
        intermediate_size=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        layer_norm_eps=1e-12,
        num_labels=1,
    )
    model = BertForSequenceClassification(config)
    missing, unexpected = model.bert.load_state_dict(weights, strict=False)
    if unexpected or any("pooler" not in name for name in missing):
        raise RuntimeError(f"weights do not fit: {missing}, {unexpected}")
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(relevance / "tokenizer.json"),
        pad_token="[PAD]",  # noqa: S106 - words of the vocabulary
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
    ).save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu", max_length=82)


def timed(work: Callable[[], object]) -> float:
    """Seconds it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(options.threads)
    with options.documents.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [" ".join(f"{row.get('title', '')} {row['text']}".split()[: options.words]) for row in rows]
    texts = texts[:: len(texts) // (CANDIDATES * len(QUERIES))][: CANDIDATES * len(QUERIES)]
    shares = [texts[n * CANDIDATES : (n + 1) * CANDIDATES] for n in range(len(QUERIES))]
    model = OnnxRelevance(options.relevance, threads=options.threads, max_known=0)
    with tempfile.TemporaryDirectory() as folder:
        rival = cross_encoder(Path(folder), options.relevance, options.heads)
    pairs = [(query, text) for query, share in zip(QUERIES, shares, strict=True) for text in share]

    async def ours() -> float:
        began = time.perf_counter()
        await asyncio.gather(
            *(
                model.score(query, [Content(text) for text in share])
                for query, share in zip(QUERIES, shares, strict=True)
            )
        )
        return len(pairs) / (time.perf_counter() - began)

    def theirs() -> float:
        return len(pairs) / timed(
            lambda: rival.predict(pairs, batch_size=options.batch, show_progress_bar=False)
        )

    async def alone(query: str, share: list[str]) -> dict[str, float]:
        contents = [Content(text) for text in share]
        began = time.perf_counter()
        await model.score(query, contents)
        scored = time.perf_counter()
        await model.embed_documents(contents)
        return {"finerank_ms": 1e3 * (scored - began), "rawrank_ms": 1e3 * (time.perf_counter() - scored)}

    await ours()
    theirs()
    rounds, latencies = [], []
    for number in range(options.rounds):
        order = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        rounds.append({name: await ours() if name == "ours" else theirs() for name in order})
        latencies += [await alone(query, share) for query, share in zip(QUERIES, shares, strict=True)]
    await model.close()
    return {
        "pairs_per_s": {name: statistics.median(one[name] for one in rounds) for name in ("ours", "theirs")},
        "ratio": statistics.median(one["ours"] / one["theirs"] for one in rounds),
        "latency_ms": {
            stage: {
                "p50": statistics.median(one[stage] for one in latencies),
                "p99": float(np.percentile([one[stage] for one in latencies], 99)),
            }
            for stage in ("rawrank_ms", "finerank_ms")
        },
        "threads": options.threads,
        "pairs": len(pairs),
        "candidates": CANDIDATES,
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--documents", type=Path, required=True, help="corpus.jsonl")
    parser.add_argument("--relevance", type=Path, required=True, help="folder of the model")
    parser.add_argument("--words", type=int, default=20, help="words of a document; about 30 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="of the CrossEncoder")
    parser.add_argument("--heads", type=int, default=12, help="attention heads of the encoder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = asyncio.run(measure(options))
    print(json.dumps({name: value for name, value in result.items() if name != "rounds"}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
