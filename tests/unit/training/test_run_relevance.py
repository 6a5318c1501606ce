"""Making a relevance model: a run that is interrupted goes on, and what is published is what was trained."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tiny_relevance import SIZE, WORDS, image, tiny_model, tiny_tokenizer

from app.errors import CheckpointError
from app.relevance.base import Content, Floats
from app.relevance.choice import DEFAULT_RELEVANCE
from app.relevance.images import ImageTower
from app.relevance.model import OnnxRelevance, read_verified
from training import relevance
from training.config import ConfigError, RelevanceConfig
from training.datasets.judgements import Judgement, Listing
from training.relevance import Reader, RelevanceModel, train
from training.relevance_card import relevance_card
from training.run_relevance import calibrated, publish
from training.vision import HEIGHT, IMAGE_DIM, WIDTH, Tower, embed_images

CONFIG = RelevanceConfig(
    name="tiny",
    seed=3,
    data_dir=Path(),
    save_every=2,
    steps=24,
    float_steps=18,
    batch=4,
    crowd=8,
    learning_rate=1e-3,
    mixture={"letters": 0.7, "images": 0.3},
)


class Letters:
    """A document of a letter answers its letter; documents come in as many groups."""

    def __init__(self) -> None:
        self.centroids: Floats = np.eye(len(WORDS), SIZE, dtype=np.float32)
        self.drawn = 0
        self.fails_at = -1

    def draw(self, rng: Random) -> Judgement:
        self.drawn += 1
        if self.drawn == self.fails_at:
            raise KeyboardInterrupt
        letter, *others = rng.sample(range(4, len(WORDS)), 4)
        wrong = tuple(Content(WORDS[other]) for other in others)
        return Judgement(WORDS[letter], Content(WORDS[letter]), wrong, WORDS[letter], letter)

    def crowd(self, rng: Random, count: int) -> tuple[list[Content], list[int]]:
        groups = rng.sample(range(4, len(WORDS)), count)
        return [Content(WORDS[group]) for group in groups], groups


class Images:
    def draw(self, rng: Random) -> Judgement:
        shown, *others = rng.sample(range(9), 4)
        wrong = tuple(Content("a", image(other)) for other in others)
        return Judgement("a b", Content("a", image(shown)), wrong, str(shown))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance, "base_model", lambda: (tiny_model(), tiny_tokenizer()))
    monkeypatch.setattr(relevance, "WATCHED", 3)


def trained(run_dir: Path, letters: Letters) -> RelevanceModel:
    return train(CONFIG, {"letters": letters, "images": Images()}, letters, run_dir)[0]


def test_a_run_that_is_interrupted_goes_on_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What dropout leaves out is drawn by chance.
    monkeypatch.setattr(relevance, "base_model", lambda: (tiny_model(dropout=0.1), tiny_tokenizer()))
    whole = trained(tmp_path / "whole", Letters())
    interrupted = Letters()
    interrupted.fails_at = 40
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", interrupted)
    assert (tmp_path / "cut" / "state.pt").exists()
    again = trained(tmp_path / "cut", Letters())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "steps.jsonl").read_text().splitlines()]
    assert steps == list(range(1, CONFIG.steps + 1))


@pytest.mark.parametrize("eight_bits", [True, False])
def test_what_is_published_is_what_was_trained(tmp_path: Path, *, eight_bits: bool) -> None:
    model = trained(tmp_path, Letters())
    model.compute("eight bits" if eight_bits else "float")
    rng = Random(1)
    listings = [
        Listing(WORDS[n], tuple(Content(word) for word in WORDS[4:]), tuple(WORDS[n] == w for w in WORDS[4:]))
        for n in range(4, 12)
    ]
    tower = Tower().eval()
    out = tmp_path / "out"
    manifest = publish(
        model,
        tower,
        tiny_tokenizer(),
        listings,
        out,
        model_id="tiny",
        facts={"steps": CONFIG.steps},
        eight_bits=eight_bits,
    )
    reader = Reader(tiny_tokenizer())
    contents = [Content("b c"), Content("a", image(3)), Content("d " * 60)]

    async def served() -> tuple[Floats, Floats, list[float]]:
        one = OnnxRelevance(out)
        found = (
            await one.embed_queries(["a b"]),
            await one.embed_documents(contents),
            await one.score("a b", contents),
        )
        await one.close()
        return found

    queries, documents, scores = asyncio.run(served())
    # The graph in 8 bits has words so too, which training leaves as they are.
    near = 0.03 if eight_bits else 1e-4
    with torch.no_grad():
        assert queries == pytest.approx(model.embed(reader.queries(["a b"])).numpy(), abs=near)
        assert documents == pytest.approx(model.embed(reader.documents(contents)).numpy(), abs=near)
        logits = model.pair_logits(reader.pairs([("a b", content) for content in contents])).tolist()
    assert manifest.score
    assert scores == pytest.approx([manifest.score.calibration.read(logit) for logit in logits], abs=near)
    assert manifest.training["steps"] == CONFIG.steps
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"{manifest.score.calibration.scale:.3f}" in card
    assert ("8 bits" in card) == eight_bits
    pixels = np.random.default_rng(rng.randrange(9)).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    images = ImageTower(out).embed(pixels)
    assert images == pytest.approx(embed_images(tower, pixels), abs=1e-4)
    assert images.shape == (2, IMAGE_DIM)


def test_a_card_says_on_what_terms_every_source_is() -> None:
    manifest = read_verified(DEFAULT_RELEVANCE)
    card = relevance_card(manifest)
    assert card == (DEFAULT_RELEVANCE / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "do not redistribute" in card
    other = manifest.model_copy(update={"training": {"mixture": {"secrets": 1.0}}})
    with pytest.raises(ConfigError, match="secrets"):
        relevance_card(other)


def test_a_calibration_gives_back_the_shares_that_it_saw() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=20_000)
    relevant = (rng.random(20_000) < 1 / (1 + np.exp(-(2.0 * raw - 1.5)))).astype(np.float64)
    found = calibrated(raw, relevant)
    assert (found.scale, found.shift) == pytest.approx((2.0, -1.5), abs=0.1)


def test_a_folder_without_a_vision_tower_is_refused_as_one(tmp_path: Path) -> None:
    from counting_model import counting_graph, write_model  # noqa: PLC0415

    folder = write_model(tmp_path, counting_graph())
    with pytest.raises(CheckpointError, match="without a vision tower"):
        ImageTower(folder)
