"""Made-up training data, in the real layout and small enough for a test, and a run of a second on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TITLES = {"11-1": "Registered Nurses", "22-2": "Carpenters", "33-3": "Bakers"}
TITLES |= {f"44-{n}": f"Operators of Machine {n}" for n in range(40)}


def write_data(data: Path) -> Path:
    """Write every folder that training reads."""

    def jsonl(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def tsv(name: str, header: str, rows: Iterable[tuple[str, ...]]) -> None:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n", encoding="utf-8")

    jsonl("jobs/occupations.jsonl", [{"code": code, "title": title} for code, title in TITLES.items()])
    synonyms = [
        (f"{word} {title}", code, "alternate")
        for code, title in TITLES.items()
        for word in ("Senior", "Junior", "Lead", "Chief", "Night")
    ]
    synonyms += [("Helper", "11-1", "alternate"), ("Helper", "22-2", "reported")]
    tsv("jobs/synonyms_train.tsv", "title\tonet_code\tsource", synonyms)
    tsv(
        "jobs/labels_train.tsv", "onet_code\tcorpus-id", [(code, f"C{code}") for code in TITLES if code > "4"]
    )
    products = [
        {"_id": str(n), "title": f"Red laptop bag {n}", "text": "wireless mouse", "brand": "Acme"}
        for n in range(5)
    ]
    products.append({"_id": "9", "title": "Curious gizmo", "text": "", "brand": None})
    jsonl("products/corpus.jsonl", products)
    typos = [("recieve", "receive", "typos"), ("teh", "the", "codespell"), ("wierd", "weird", "typos")]
    tsv("typos/misspellings.tsv", "misspelling\tcorrection\tsource", typos)
    turns = [
        {
            "_id": f"{c}-{n}",
            "source": "cast2019",
            "conversation": f"c{c}",
            "query": "Is it treatable?",
            "history": [{"role": "user", "text": f"What is illness {c}?"}, {"role": "system", "text": "x"}][
                : 2 * n
            ],
            "rewrite": [f"Is illness {c} treatable?"],
            "changed": True,
        }
        for c in range(60)
        for n in (0, 1)
    ]
    jsonl("context/train.jsonl", turns)
    jsonl("context/dev.jsonl", turns[:6])
    items = [
        {
            "id": str(1000 + n),
            "title": f"Nike {gender} {colour} {article} {n}",
            "gender": gender,
            "master_category": "Apparel",
            "sub_category": "x",
            "article_type": article,
            "base_colour": colour,
            "season": "Fall",
            "usage": usage,
        }
        for n, (gender, colour, article, usage) in enumerate(
            (g, c, a, u)
            for g in ("Men", "Women")
            for c in ("Blue", "Red", "Green")
            for a in ("Shoes", "Tops", "Caps")
            for u in ("Casual", "Sports")
        )
    ]
    jsonl("fashion/items.jsonl", items)
    return data


def sft_config(data_dir: Path | str) -> str:
    """The TOML of a run of supervised fine-tuning on them."""
    return f"""
name = "mini"
seed = 3
data_dir = "{data_dir}"
threads = 1
[mixture]
jobs = 0.5
products = 0.2
typos = 0.1
context = 0.1
fashion = 0.1
[model]
vocab_size = 400
hidden_size = 32
num_layers = 2
num_heads = 2
num_kv_heads = 1
head_dim = 16
intermediate_size = 64
max_tokens = 256
[optim]
steps = 150
batch_tokens = 8000
learning_rate = 1e-2
matrix_learning_rate = 2e-2
weight_decay = 0.01
warmup_ratio = 0.1
clip_norm = 1.0
dropout = 0.1
"""
