"""What limits the rewriter: accuracy on held-out titles by size, data, steps and recipe.

`python -m training.scaling --config training/configs/default.toml --out docs/plots/scaling.json` trains one
small run per point of `POINTS`, on job titles alone, each different from the first in one respect. Accuracy
is the share of held-out titles of known occupations whose greedy rewrite is the right title; AUROC says how
well the sequence probability tells right rewrites from wrong ones, titles of hidden occupations among them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from app.contracts.prompt import CONTROL_TOKENS, PAD, render
from training.config import RunConfig, read_config
from training.datasets.examples import read_tsv
from training.datasets.jobs import JobSplit, forms, read_jobs
from training.sft import train

SEED, BATCH, MAX_NEW_TOKENS = 3, 128, 24


@dataclass(frozen=True, slots=True)
class Point:
    """One run: which question it answers, its label there, and what it changes."""

    axis: str
    label: str
    data_ratio: float = 1.0
    steps_ratio: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)


NARROW = {"hidden_size": 128, "num_layers": 2, "num_heads": 2, "intermediate_size": 384}
WIDE = {"hidden_size": 320, "num_layers": 6, "num_heads": 5, "intermediate_size": 1024}

POINTS = (
    Point("all", "default, titles alone"),
    Point("steps", "1/4 of the steps", steps_ratio=0.25),
    Point("steps", "1/2 of the steps", steps_ratio=0.5),
    Point("steps", "twice the steps", steps_ratio=2.0),
    Point("data", "1/4 of the titles", data_ratio=0.25),
    Point("data", "1/2 of the titles", data_ratio=0.5),
    Point("size", "2 layers of 128", changes={"model": NARROW}),
    Point("size", "6 layers of 320", changes={"model": WIDE}),
    Point("recipe", "half of them recombined", changes={"mixture": {"jobs": 0.5, "recombined": 0.5}}),
    Point("recipe", "random start", changes={"semantic_start": False}),
    Point("recipe", "no broken words", changes={"optim": {"break_ratio": 0.0}}),
)


def vary(config: RunConfig, point: Point, steps: int, data_dir: Path) -> RunConfig:
    """Return the configuration of one run: that of `config` on job titles alone, with the point's changes."""
    record = config.model_dump()
    record |= {"mixture": {"jobs": 1.0}, "data_dir": data_dir, "name": point.label}
    record["optim"]["steps"] = round(steps * point.steps_ratio)
    for name, change in point.changes.items():
        merge = isinstance(change, Mapping) and name != "mixture"
        record[name] = {**record[name], **change} if merge else change
    return RunConfig.model_validate(record)


def write_share(jobs_dir: Path, split: JobSplit, ratio: float, out: Path) -> None:
    """Write a jobs/ folder into `out` with a share of the training titles of `split` and no held-out one.

    Its labels_train.tsv lists the hidden occupations alone, so that reading it holds out nothing more.
    """
    held = {held.title.casefold() for held in (*split.seen, *split.unseen)}
    trained = sorted(
        {
            title.casefold()
            for title, _ in split.train
            if not held & {form.casefold() for form in forms(title)}
        }
    )
    kept = set(Random(SEED).sample(trained, round(ratio * len(trained))))
    out.mkdir(parents=True, exist_ok=True)
    (out / "occupations.jsonl").write_bytes((jobs_dir / "occupations.jsonl").read_bytes())
    titles = [row for row in read_tsv(jobs_dir / "synonyms_train.tsv") if row["title"].casefold() in kept]
    labels = [row for row in read_tsv(jobs_dir / "labels_train.tsv") if row["onet_code"] in split.hidden]
    for name, rows in (("synonyms_train.tsv", titles), ("labels_train.tsv", labels)):
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@torch.no_grad()
def judge(model: Qwen3ForCausalLM, tokenizer: Tokenizer, split: JobSplit) -> dict[str, float]:
    """Return accuracy on known occupations, mean probability on known and hidden ones, and AUROC."""
    asked = [(t.title, split.canonical[t.onet_code]) for t in split.seen] + [
        (t.title, "") for t in split.unseen
    ]
    order = sorted(range(len(asked)), key=lambda place: len(asked[place][0]))
    right, logprobs = np.zeros(len(asked), dtype=bool), np.zeros(len(asked))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        for place, (text, logprob) in zip(
            places, greedy(model, tokenizer, [asked[place][0] for place in places]), strict=True
        ):
            right[place], logprobs[place] = text == asked[place][1].casefold(), logprob
    known = len(split.seen)
    ranks = rankdata(logprobs)
    wrong = len(right) - right.sum()
    area = (ranks[right].sum() - right.sum() * (right.sum() + 1) / 2) / max(1, right.sum() * wrong)
    return {
        "accuracy": round(float(right[:known].mean()), 4),
        "probability_known": round(float(np.exp(logprobs[:known]).mean()), 4),
        "probability_hidden": round(float(np.exp(logprobs[known:]).mean()), 4),
        "auroc": round(float(area), 4),
    }


def greedy(model: Qwen3ForCausalLM, tokenizer: Tokenizer, queries: Sequence[str]) -> list[tuple[str, float]]:
    """Return the greedy rewrite of each query, case-folded, and its log-probability, the end included."""
    pad = CONTROL_TOKENS.index(PAD)
    prompts = [tokenizer.encode(render(query)).ids for query in queries]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    out = model.generate(
        ids,
        attention_mask=(ids != pad).long(),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    written = out.sequences[:, width:]
    steps = torch.stack(out.logits, dim=1).float().log_softmax(-1)
    chosen = steps.gather(-1, written[..., None])[..., 0].masked_fill(written == pad, 0.0)
    texts = [tokenizer.decode(row) for row in written.tolist()]  # control tokens are skipped
    return list(
        zip((" ".join(text.split()).casefold() for text in texts), chosen.sum(-1).tolist(), strict=True)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge every point that `--out` lacks; a run that was interrupted goes on."""
    parser = argparse.ArgumentParser(
        prog="python -m training.scaling", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON; rows that it has are kept")
    parser.add_argument("--steps", type=int, default=600, help="of the first point (default 600)")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "scaling")
    args = parser.parse_args(argv)
    config = read_config(args.config, RunConfig)
    jobs_dir = config.data_dir / "jobs"
    split = read_jobs(jobs_dir)
    rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    for point in tqdm([p for p in POINTS if p.label not in {row["label"] for row in rows}], unit="run"):
        folder = args.runs / point.label.replace("/", "-")
        write_share(jobs_dir, split, point.data_ratio, folder / "data" / "jobs")
        varied = vary(config, point, args.steps, folder / "data")
        model, tokenizer = train(varied, folder)
        row = {
            "axis": point.axis,
            "label": point.label,
            "parameters": model.num_parameters(),
            "titles": len(read_jobs(folder / "data" / "jobs").train),
            "steps": varied.optim.steps,
        }
        rows.append(row | judge(model, tokenizer, split))
        args.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
