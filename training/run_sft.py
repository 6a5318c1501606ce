"""`corewrite train sft`: from a configuration to a checkpoint folder and its reliability plot."""

from __future__ import annotations

import json
from pathlib import Path

from training.calibrate import make_probes
from training.config import RunConfig
from training.publish import publish
from training.reliability import draw_reliability
from training.sft import train


def run(config: RunConfig, run_dir: Path, out: Path) -> None:
    """Train in `run_dir` (or go on there), write the checkpoint to `out` and what was seen to `run_dir`."""
    model, tokenizer = train(config, run_dir)
    lines = [json.loads(line) for line in (run_dir / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = {
        "steps": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "step_seconds": round(sum(line["seconds"] for line in lines)),
        "threads": config.threads,
    }
    found = publish(model, tokenizer, config, out, facts=facts, probes=make_probes(config.data_dir))
    (run_dir / "reliability.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw_reliability(found, run_dir / "reliability.png")
