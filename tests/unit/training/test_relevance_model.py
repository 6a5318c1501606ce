"""The relevance model, tiny: what is trained is what the graph computes."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tiny_relevance import SIZE, WORDS, image, tiny_model, tiny_tokenizer

from app.relevance.base import Content
from training.datasets.judgements import Judgement
from training.relevance import JOINT_LAYERS, Batch, Reader, RelevanceModel, loss_of
from training.relevance_onnx import build_graph
from training.vision import HEIGHT, WIDTH, Tower, as_input, embed_images, tower_graph


@pytest.fixture
def model() -> RelevanceModel:
    return tiny_model()


@pytest.fixture
def reader() -> Reader:
    return Reader(tiny_tokenizer())


PAIRS = [
    ("a b", Content("c d e f g", image(1))),
    ("a b c", Content("d")),
    ("p", Content("o n m", image(2))),
]


CENTROIDS = torch.nn.functional.normalize(
    torch.randn(5, SIZE, generator=torch.Generator().manual_seed(0)), dim=1
)


def run(graph: bytes, reader: Reader, pairs: list[tuple[str, Content]], output: str) -> np.ndarray:
    batch = reader.pairs(pairs)
    feeds = {
        "input_ids": batch.ids.numpy(),
        "attention_mask": batch.mask.numpy(),
        "token_type_ids": batch.types.numpy(),
        "image": batch.image.numpy(),
    }
    found: np.ndarray = ort.InferenceSession(graph).run([output], feeds)[0]
    return found


@torch.no_grad()
def test_the_graph_computes_what_torch_does(model: RelevanceModel, reader: Reader) -> None:
    graph, batch = build_graph(model, quantised=False), reader.pairs(PAIRS)
    assert run(graph, reader, PAIRS, "logit") == pytest.approx(model.pair_logits(batch).numpy(), abs=1e-6)
    assert run(graph, reader, PAIRS, "embedding") == pytest.approx(model.embed(batch).numpy(), abs=1e-6)


def in_eight_bits(model: RelevanceModel, reader: Reader) -> Iterator[RelevanceModel]:
    model.compute("watching")
    model.pair_logits(reader.pairs(PAIRS))
    model.compute("eight bits")
    yield model


@torch.no_grad()
def test_in_eight_bits_it_computes_what_was_trained_bit_for_bit_in_any_batch(
    model: RelevanceModel, reader: Reader
) -> None:
    model = next(in_eight_bits(model, reader))
    graph, batch = build_graph(model), reader.pairs(PAIRS)
    words = model.bert.embeddings.word_embeddings.weight
    scale = words.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    words.copy_(torch.round(words / scale) * scale)
    logits = run(graph, reader, PAIRS, "logit")
    # A level more or less where a product lies on the border of two; never the size of the numbers.
    assert logits == pytest.approx(model.pair_logits(batch).numpy(), abs=5e-3)
    alone = np.concatenate([run(graph, reader, [pair], "logit") for pair in PAIRS])
    assert alone.tolist() == logits.tolist()
    assert run(graph, reader, PAIRS[::-1], "logit").tolist() == logits[::-1].tolist()


@torch.no_grad()
def test_an_image_counts_and_a_document_without_one_is_read_as_text_alone(
    model: RelevanceModel, reader: Reader
) -> None:
    def logit(content: Content) -> float:
        return float(model.pair_logits(reader.pairs([("a b", content)]))[0])

    plain = logit(Content("c d"))
    assert logit(Content("c d", image(1))) != pytest.approx(plain, abs=1e-6)
    with torch.random.fork_rng():
        model.image.weight.normal_()
    assert logit(Content("c d")) == plain


def lower_layers(model: RelevanceModel, batch: Batch) -> list[torch.Tensor]:
    """What each layer makes of a batch."""
    found: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *args: found.append(args[2])) for layer in model.bert.encoder.layer
    ]
    model.encode(batch)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def test_below_the_joint_layers_each_text_of_a_pair_is_read_as_alone(
    model: RelevanceModel, reader: Reader
) -> None:
    content = Content("c d e", image(1))
    pair = lower_layers(model, reader.pairs([("a b", content)]))
    query = lower_layers(model, reader.queries(["a b"]))
    document = lower_layers(model, reader.documents([content]))
    asked = query[0].shape[1] - 1  # the last place is an image's
    for layer in range(len(pair) - JOINT_LAYERS):
        assert pair[layer][:, :asked] == pytest.approx(query[layer][:, :asked], abs=1e-5)
        assert pair[layer][:, asked:] == pytest.approx(document[layer], abs=1e-5)
    assert pair[-1][:, :asked] != pytest.approx(query[-1][:, :asked], abs=1e-3)


def judgement(rng: Random, answers: str) -> Judgement:
    text = " ".join(rng.choices(WORDS[4:], k=3))
    return Judgement(
        text, Content(text), tuple(Content(" ".join(rng.choices(WORDS[4:], k=3))) for _ in range(3)), answers
    )


def test_judgements_of_the_same_answers_are_no_negatives_of_one_another(
    model: RelevanceModel, reader: Reader
) -> None:
    rng = Random(1)
    one, other = judgement(rng, "x"), judgement(rng, "x")
    renamed = Judgement(other.query, other.relevant, other.others, "y")
    with torch.no_grad():
        same = loss_of(model, reader, [one, other], CENTROIDS)
        different = loss_of(model, reader, [one, renamed], CENTROIDS)
    assert same["embedding"] < different["embedding"]
    assert same["score"] == different["score"]


def test_a_few_steps_learn_to_tell_the_relevant_document(model: RelevanceModel, reader: Reader) -> None:
    rng = Random(2)
    judgements = [judgement(rng, str(n)) for n in range(16)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    first: float | None = None
    for step in range(60):
        if step == 40:
            model.compute("watching")
            loss_of(model, reader, judgements, CENTROIDS)
            model.compute("eight bits")
        terms = loss_of(model, reader, judgements, CENTROIDS)
        loss = torch.stack(list(terms.values())).sum()
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first / 3


@torch.no_grad()
def test_the_towers_graph_computes_what_torch_does() -> None:
    torch.manual_seed(3)
    tower = Tower().train()
    pixels = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)
    tower(as_input(pixels))  # running means other than those of a fresh layer
    tower.eval()
    session = ort.InferenceSession(tower_graph(tower))
    (found,) = session.run(None, {"pixels": as_input(pixels).numpy()})
    assert found == pytest.approx(embed_images(tower, pixels), abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
