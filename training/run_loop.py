"""`corewrite train loop`: from a log of searches to a checkpoint, wired together.

searches (real, or simulated over the staged stack) -> instances -> phases -> checkpoint folder
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from app.contracts.manifest import MANIFEST_NAME, address_of
from app.contracts.prompt import render
from app.engines.text import read_tokenizer
from app.ray_actors import Workers
from app.registry.checkpoint import load_checkpoint, read_manifest
from app.relevance.manifest import RelevanceManifest
from training.calibrate import make_probes
from training.card import preference_card
from training.config import ConfigError, LoopConfig
from training.datasets.examples import DataError
from training.loop import Loop, Material, measured_phases
from training.loop_plot import draw_loop
from training.on_ray import RaySampler
from training.publish import publish
from training.sampler import LocalSampler, Sampler, served_rater
from training.searches import Searches, read_searches


def run(config: LoopConfig, run_dir: Path, out: Path, workers: Workers | None = None) -> None:
    """Go on with the run in `run_dir`, and write the checkpoint of its last policy to `out`.

    Completions are drawn and rated by `workers` of Ray, or without any in this process.

    Raises:
        ConfigError, DataError, CheckpointError: what it needs is missing or wrong.
        PhaseError, CorewriteError: the loop failed; see `Loop.run`.
    """
    torch.set_num_threads(config.num_threads)
    claim(run_dir, config)
    load_checkpoint(config.checkpoint)  # one that the last policy could not be published from is refused now
    searches = read_searches(config, run_dir)
    if not searches.learning:
        raise DataError("no search with a click to learn from: see logs, since and until")
    sampler = make_sampler(config, searches.corpus, workers)
    policy = Loop(config, material_of(searches, sampler), run_dir).run()
    draw_loop(run_dir, config.phases, run_dir / "phases.png")
    publish_policy(config, run_dir, policy, searches, out)


def material_of(searches: Searches, sampler: Sampler) -> Material:
    """What a loop over these searches works on."""
    return Material(searches.learning, searches.held_out, sampler, searches.unclicked)


def claim(run_dir: Path, config: LoopConfig) -> None:
    """Make the folder this run's, or see that it is.

    Raises:
        ConfigError: it holds a run of another configuration, which cannot be gone on with.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file = run_dir / "config.json"
    # How many threads compute is no part of what is computed.
    own = config.model_dump(mode="json", exclude={"threads"})
    if not file.exists():
        file.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    if other := [name for name in own if known.get(name) != own[name]]:
        raise ConfigError(
            f"{run_dir} holds a run with another `{other[0]}`: go on with that configuration, "
            "or name another --run-dir"
        )


def make_sampler(config: LoopConfig, corpus: Sequence[str], workers: Workers | None) -> Sampler:
    """Return what draws and rates; how it is distributed is no part of what is computed."""
    if workers is None:
        rater = served_rater(config, corpus, config.num_threads)
        return LocalSampler(config.sampling, rater, threads=config.num_threads)
    # Both travel to every actor, whose working directory is another.
    counted = corpus if "overlap" in config.reward.scorers else ()
    placed = config.model_copy(update={"relevance": config.relevance.resolve()})
    return RaySampler(config.sampling, partial(served_rater, placed, counted, workers.threads), workers)


def publish_policy(config: LoopConfig, run_dir: Path, policy: Path, searches: Searches, out: Path) -> None:
    """Write the checkpoint of the policy that the loop in `run_dir` ended with.

    It is calibrated anew, and names its parent.
    """
    parent = load_checkpoint(config.checkpoint)
    model = Qwen3ForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tokenizer, _ = read_tokenizer(policy)
    publish(
        model,
        tokenizer,
        out,
        checkpoint_id=config.name,
        max_tokens=model.config.max_position_embeddings,
        training={"config": config.model_dump(mode="json", exclude={"data_dir"})},
        card=partial(preference_card, config, parent.id, measured_phases(run_dir)),
        probes=make_probes(config.data_dir),
        parent=config.checkpoint,
        prompts=[render(instance.query, instance.context) for instance in searches.held_out],
        data_window=searches.window,
        reward_version=reward_version(config),
    )


def reward_version(config: LoopConfig) -> str:
    """Name a reward by what makes it: the relevance model that serves, and the terms, by their digests."""
    model = read_manifest(config.relevance, RelevanceManifest, "a relevance model").model_id
    address = address_of((config.relevance / MANIFEST_NAME).read_bytes())
    terms = hashlib.sha256(config.reward.model_dump_json().encode()).hexdigest()
    return f"{model}@{address[:12]}+{terms[:12]}"
