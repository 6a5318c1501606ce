"""The card of a relevance model: what it was made from, on what terms, what it is for."""

from __future__ import annotations

from app.relevance.manifest import Head, RelevanceManifest
from training.config import ConfigError

TERMS = {
    "concepts": "surface forms of one ESCO concept, and those that only look like it. ESCO v1.1, European "
    "Commission, as processed by the MELO benchmark (MIT); ESCO's own terms were not verified.",
    "clicks": "job titles -> the forms that were clicked. Titles: O*NET 27.0 Database, CC BY 4.0; the links "
    "to ESCO are those of the crosswalk as processed by MELO (MIT).",
    "products": "words of an electronics catalogue's products -> the product. Product texts from Icecat "
    "(Open Content License) through o19s/chorus (Apache-2.0).",
    "fashion": "colour, article and gender -> an item and its thumbnail; the vision tower is trained on it "
    "too. Fashion Product Images through public repositories; the licence was not verified: do not "
    "redistribute the data, and train without this source where that matters.",
}

O_NET = (
    "This model was trained on information from the O*NET 27.0 Database by the U.S. Department of Labor, "
    "Employment and Training Administration (USDOL/ETA), used under the CC BY 4.0 licence; it was modified "
    "here. O*NET® is a trademark of USDOL/ETA. USDOL/ETA has not approved, endorsed, or tested it."
)


def relevance_card(manifest: RelevanceManifest) -> str:
    """The text of `README.md` in the folder of the model.

    Raises:
        ConfigError: a source of the mixture has no terms here.
    """
    mixture = manifest.training.get("mixture", {})
    shares = dict(mixture) if isinstance(mixture, dict) else {}
    if unknown := shares.keys() - TERMS.keys():
        raise ConfigError(f"mixture: say in training/relevance_card.py on what terms {min(unknown)!r} is")
    whole = sum(shares.values()) or 1.0
    data = "\n".join(f"| {name} | {share / whole:.0%} | {TERMS[name]} |" for name, share in shares.items())
    size = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    weights = manifest.training.get("weights", "8 bits")
    facts = ", ".join(f"{name} {value}" for name, value in manifest.training.items() if name != "mixture")
    return f"""---
language: en
library_name: onnx
pipeline_tag: text-ranking
base_model: sentence-transformers/all-MiniLM-L6-v2
---
# {manifest.model_id}

A relevance model of {size:.0f} MB in {weights}, made from all-MiniLM-L6-v2 (Apache-2.0): embeddings for a
bi-encoder and scores of pairs, of texts and, where there are any, images. It is what corewrite weighs
rewrites with; it is not a general one, and a stack that has its own should serve that. `manifest.json` says
how it is read.

## Data

| source | share of steps | what it teaches, and its terms |
|---|---|---|
{data}

{O_NET if "clicks" in shares else ""}

## Training

{facts}. Seeded; `corewrite train relevance` makes it again.

## Calibration

s = sigmoid(scale · x + shift), by Platt's fit on the documents nearest to titles whose clicks were held out
and on held-out fashion items:

| head | x | scale | shift |
|---|---|---|---|
{_line("rawrank", "cosine", manifest.embedding)}
{_line("finerank", "logit", manifest.score)}

## Limits

English only; short texts (a document is cut at 48 tokens); a document's concept is known for the forms of
ESCO v1.1, others are read by what they say. A colour is seen in images of single fashion items on white, 60
by 80 pixels.
"""


def _line(name: str, raw: str, head: Head | None) -> str:
    if head is None:
        return f"| {name} | none | | |"
    return f"| {name} | {raw} | {head.calibration.scale:.3f} | {head.calibration.shift:.3f} |"
