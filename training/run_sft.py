"""`corewrite train sft`: from a configuration to a checkpoint folder and its reliability plot."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from training.calibrate import make_probes
from training.card import model_card
from training.config import RunConfig
from training.publish import publish
from training.reliability import draw_reliability
from training.sft import train


def run(config: RunConfig, run_dir: Path, out: Path) -> None:
    """Train in `run_dir` (or go on there); write the checkpoint to `out`, its reliability to `run_dir`."""
    model, tokenizer = train(config, run_dir)
    facts = run_facts(config, run_dir)
    found = publish(
        model,
        tokenizer,
        out,
        checkpoint_id=config.name,
        max_tokens=config.model.max_tokens,
        training={"config": config.model_dump(mode="json", exclude={"data_dir"}), **facts},
        card=partial(model_card, config, facts=facts),
        probes=make_probes(config.data_dir),
    )
    (run_dir / "reliability.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw_reliability(found, run_dir / "reliability.png")


def run_facts(config: RunConfig, run_dir: Path) -> dict[str, str]:
    """Return what a run cost: its name -> steps, tokens (padding included), seconds."""
    log = (run_dir / "steps.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    tokens, seconds = (sum(line[field] for line in lines) for field in ("tokens", "seconds"))
    threads = config.threads or "all"
    return {config.name: f"{len(lines)} steps, {tokens:,} tokens, {seconds:.0f} s on {threads} thread(s)"}
