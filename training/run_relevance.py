"""`corewrite train relevance`: from data to the folder of a relevance model.

vision tower -> image embeddings -> training -> calibration on what was held out -> graph -> manifest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from app.contracts.manifest import MANIFEST_NAME
from app.registry.checkpoint import describe_file
from app.relevance.manifest import Calibration, Head, RelevanceManifest
from training.config import ConfigError, RelevanceConfig
from training.datasets.followups import FashionItem
from training.datasets.judgements import (
    Clicks,
    Concepts,
    Fashion,
    Judgements,
    Listing,
    Listings,
    Products,
    read_fashion,
)
from training.relevance import HEAD, Reader, RelevanceModel, train
from training.relevance_card import relevance_card
from training.relevance_onnx import build_graph
from training.vision import (
    IMAGE_DIM,
    Pixels,
    Tower,
    embed_images,
    read_thumbnails,
    tower_graph,
    train_tower,
)

CALIBRATION_LISTINGS = 150


def run(config: RelevanceConfig, run_dir: Path, out: Path, *, eight_bits: bool = True) -> None:
    """Make the model in `run_dir` (or go on there) and write its folder to `out`.

    Not in eight bits, the graph computes in float32: what 8 bits cost is measured so.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    data_dir = config.data_dir
    items = read_fashion(data_dir / "fashion")
    ids = [item.item_id for item in items]
    pixels = read_thumbnails(data_dir / "fashion" / "thumbs_60x80.zip", ids)
    tower = make_tower(items, pixels, run_dir)
    images = dict(zip(ids, map(tuple, embed_images(tower, pixels).tolist()), strict=True))
    concepts = Concepts(data_dir / "jobs")
    sources: dict[str, Judgements] = {
        "concepts": concepts,
        "clicks": Clicks(data_dir / "jobs", concepts),
        "products": Products(data_dir / "products"),
        "fashion": Fashion(items, images),
    }
    if unknown := config.mixture.keys() - sources.keys():
        raise ConfigError(f"mixture: no source {min(unknown)!r}, there are {', '.join(sources)}")
    model, tokenizer = train(config, sources, concepts, run_dir)
    held_out: tuple[Listings, ...] = (
        Clicks(data_dir / "jobs", concepts, "calibration"),
        Fashion(items, images, "validation"),
    )
    model.compute("eight bits" if eight_bits else "float")
    rng = Random(config.seed)
    listings = [source.listing(rng) for source in held_out for _ in range(CALIBRATION_LISTINGS)]
    publish(
        model,
        tower,
        tokenizer,
        listings,
        out,
        model_id=config.name,
        facts=config.model_dump(exclude={"data_dir", "threads", "save_every"}),
        eight_bits=eight_bits,
    )


def publish(
    model: RelevanceModel,
    tower: Tower,
    tokenizer: Tokenizer,
    listings: Sequence[Listing],
    out: Path,
    *,
    model_id: str,
    facts: Mapping[str, object],
    eight_bits: bool = True,
) -> RelevanceManifest:
    """Calibrate both heads, as the model computes now, and write the folder of the model."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "model.onnx").write_bytes(build_graph(model, quantised=eight_bits))
    (out / "vision.onnx").write_bytes(tower_graph(tower))
    cosines, logits, relevant = raw_scores(model, Reader(tokenizer), listings)
    manifest = RelevanceManifest(
        version=1,
        model_id=model_id,
        files={name: describe_file(out / name) for name in ("model.onnx", "tokenizer.json", "vision.onnx")},
        image_dim=IMAGE_DIM,
        vision="vision.onnx",
        embedding=head("embedding", calibrated(cosines, relevant)),
        score=head("logit", calibrated(logits, relevant)),
        training=dict(facts) if eight_bits else {**facts, "weights": "float32"},
    )
    (out / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    (out / "README.md").write_text(relevance_card(manifest), encoding="utf-8")
    return manifest


def head(output: str, calibration: Calibration) -> Head:
    """An output of the graph as the manifest describes it."""
    return HEAD.model_copy(update={"output": output, "calibration": calibration})


@torch.no_grad()
def raw_scores(
    model: RelevanceModel, reader: Reader, listings: Sequence[Listing]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cosines, logits, and whether relevant (0 or 1), one each for every document of every listing."""
    cosines, logits, relevant = [], [], []
    for listing in listings:
        query = model.embed(reader.queries([listing.query]))[0]
        cosines += (model.embed(reader.documents(listing.documents)) @ query).tolist()
        pairs = [(listing.query, content) for content in listing.documents]
        logits += model.pair_logits(reader.pairs(pairs)).tolist()
        relevant += [float(answers) for answers in listing.relevant]
    return np.array(cosines), np.array(logits), np.array(relevant)


def calibrated(raw: NDArray[np.float64], relevant: NDArray[np.float64]) -> Calibration:
    """Platt's fit of s = sigmoid(scale * raw + shift)."""
    from scipy.optimize import minimize  # noqa: PLC0415 - only here

    def loss(theta: NDArray[np.float64]) -> float:
        logit = theta[0] * raw + theta[1]
        return float(np.mean(np.logaddexp(0.0, logit) - relevant * logit))

    scale, shift = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return Calibration(scale=float(scale), shift=float(shift))


def make_tower(items: Sequence[FashionItem], pixels: Pixels, run_dir: Path) -> Tower:
    """Train the vision tower, once for a run."""
    file = run_dir / "tower.pt"
    tower = Tower().eval()
    if file.exists():
        tower.load_state_dict(torch.load(file, weights_only=True))
        return tower
    tower = train_tower(items, pixels)
    torch.save(tower.state_dict(), file)
    return tower
