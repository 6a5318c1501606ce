"""A small vision tower: a thumbnail becomes IMAGE_DIM floats that say what a title may not, colour above all.

Trained on fashion thumbnails to name colour, article, gender and usage; the layer before the names is the
embedding, of length 1. Items that follow-ups hold out are held out here too.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from training.datasets.followups import FashionItem
from training.retrieval import Floats

IMAGE_DIM = 64
HEIGHT, WIDTH = 80, 60
CHANNELS = (24, 48, 96, 144)
NORM_EPS = 1e-5
EPOCHS, BATCH, LEARNING_RATE, SEED = 12, 128, 2e-3, 7

Pixels = NDArray[np.uint8]
"""[images, HEIGHT, WIDTH, 3], RGB."""


class Tower(nn.Module):
    """Four convolutions of stride 2, each normalised over the batch; mean and maximum over the places."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after, eps=NORM_EPS),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(2 * CHANNELS[-1], IMAGE_DIM)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels [images, 3, height, width] in 0..1 to rows of length 1, [images, IMAGE_DIM]."""
        places = self.layers(pixels)
        pooled = torch.cat([places.mean(dim=(2, 3)), places.amax(dim=(2, 3))], dim=1)
        return functional.normalize(self.out(pooled), dim=1)


def read_thumbnails(path: Path, ids: Sequence[str]) -> Pixels:
    """Read `ID.jpg` of each id from the zip file; another size than HEIGHT x WIDTH is scaled."""
    from PIL import Image  # noqa: PLC0415 - only here

    pixels = np.empty((len(ids), HEIGHT, WIDTH, 3), np.uint8)
    with zipfile.ZipFile(path) as archive:
        for row, name in enumerate(ids):
            image = Image.open(io.BytesIO(archive.read(f"{name}.jpg"))).convert("RGB")
            pixels[row] = np.asarray(image.resize((WIDTH, HEIGHT)))
    return pixels


def train_tower(items: Sequence[FashionItem], pixels: Pixels) -> Tower:
    """Train on the items of the training side; `pixels` has a row for each of `items`."""
    torch.manual_seed(SEED)
    rows = torch.tensor([row for row, item in enumerate(items) if item.side == "train"])
    targets = [
        _numbers([getattr(item.attributes, name) for item in items])
        for name in ("colour", "article", "gender", "usage")
    ]
    tower = Tower()
    heads = nn.ModuleList(nn.Linear(IMAGE_DIM, int(target.max()) + 1) for target in targets)
    optimizer = torch.optim.AdamW([*tower.parameters(), *heads.parameters()], LEARNING_RATE)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    with tqdm(total=steps, unit="step", desc="vision") as bar:
        for _ in range(EPOCHS):
            shuffled = rows[torch.randperm(len(rows))]
            for batch in shuffled[: len(rows) // BATCH * BATCH].split(BATCH):  # type: ignore[no-untyped-call]
                flipped = (
                    as_input(pixels[batch.numpy()]).flip(3) if bar.n % 2 else as_input(pixels[batch.numpy()])
                )
                # Rows of length 1 are too short for a softmax over eighty names.
                embedded = 16 * tower(flipped)
                loss = torch.stack(
                    [
                        functional.cross_entropy(head(embedded), target[batch])
                        for head, target in zip(heads, targets, strict=True)
                    ]
                ).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return tower.eval()


@torch.no_grad()
def embed_images(tower: Tower, pixels: Pixels) -> Floats:
    """The embeddings, [images, IMAGE_DIM]."""
    parts = [tower(as_input(pixels[start : start + 512])).numpy() for start in range(0, len(pixels), 512)]
    return np.concatenate(parts) if parts else np.zeros((0, IMAGE_DIM), np.float32)


def as_input(pixels: Pixels) -> torch.Tensor:
    """[images, 3, height, width] in 0..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _numbers(names: Sequence[str]) -> torch.Tensor:
    place = {name: number for number, name in enumerate(sorted(set(names)))}
    return torch.tensor([place[name] for name in names])


def tower_graph(tower: Tower) -> bytes:
    """The ONNX graph, normalisation folded into the convolutions.

    in   pixels     [images, 3, HEIGHT, WIDTH] float32 in 0..1
    out  embedding  [images, IMAGE_DIM] float32, rows of length 1
    """
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, tensor: torch.Tensor) -> str:
        constants.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    weights, x = tower.state_dict(), "pixels"
    for i in range(len(CHANNELS)):
        norm = f"layers.{3 * i + 1}"
        gain = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + NORM_EPS)
        weight = constant(f"conv_{i}", weights[f"layers.{3 * i}.weight"] * gain[:, None, None, None])
        bias = constant(f"bias_{i}", weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain)
        nodes.append(
            helper.make_node("Conv", [x, weight, bias], [f"c_{i}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c_{i}"], [f"x_{i}"]))
        x = f"x_{i}"
    last = [constant("out", tower.out.weight), constant("out_bias", tower.out.bias)]
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["mean"]),
        helper.make_node("GlobalMaxPool", [x], ["largest"]),
        helper.make_node("Concat", ["mean", "largest"], ["pooled"], axis=1),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", *last], ["projected"], transB=1),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=-1, p=2),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["images", 3, HEIGHT, WIDTH])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["images", IMAGE_DIM])
    graph = helper.make_graph(nodes, "vision", [pixels], [embedding], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    serialised: bytes = model.SerializeToString()
    return serialised
