"""The pass over the pairs of a phase, in this process or, under torchrun, in several.

`python -m torch.distributed.run --nproc-per-node N -m training.mpo_phase ...` is what `processes = N` starts;
a cluster's launcher may start the same module on many machines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback, set_seed

from training.config import MpoConfig
from training.mpo import PairIds, Part, make_trainer

MOMENTS = "moments.pt"
KEPT = ("tokenizer.json", "tokenizer_config.json")


class PhaseError(RuntimeError):
    """A pass over the pairs could not be made; the message says why."""


def train_phase(
    policy: Path,
    pairs: Path,
    config: MpoConfig,
    out: Path,
    *,
    seed: int,
    steps_file: Path,
    span: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Go once over `pairs` and write the new policy to `out`.

    That is its weights in float32, the tokenizer, and the optimiser's moments (but for LoRA, whose adapters
    are merged), with which the next pass goes on.

    Args:
        policy: the folder of the policy at the start, which drew the pairs.
        pairs: a JSON line for each, of `PairIds`.
        config: loss, optimiser, number of processes.
        out: the folder to make; what is there is replaced.
        seed: of the order of the pairs.
        steps_file: gets one JSON line per step.
        span: which part of the loop this is, for the learning rate; (0, 1): all of it.

    Raises:
        PhaseError: there are no pairs, or a process of several failed.
    """
    if config.processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.processes), "-m", "training.mpo_phase"]
        command += [f"--policy={policy}", f"--pairs={pairs}", f"--out={out}", f"--steps-file={steps_file}"]
        # Each of them makes the pass below, and finds by torchrun's variables which one it is.
        alone = config.model_copy(update={"processes": 1}).model_dump_json()
        command += ["--span", *map(str, span), f"--seed={seed}", f"--config={alone}"]
        if (code := subprocess.run(command, check=False).returncode) != 0:  # noqa: S603 -- our own module
            raise PhaseError(f"torchrun ended with {code}; what it said is above")
        return
    given = [PairIds(**json.loads(line)) for line in pairs.read_text(encoding="utf-8").splitlines()]
    if not given:
        raise PhaseError(
            f"{pairs}: no pairs: every instance was a tie, or the floor holds all that was drawn"
        )
    part = out.with_name(f"{out.name}.part")
    set_seed(seed)
    moments = policy / MOMENTS
    known = torch.load(moments, weights_only=True) if moments.exists() else None
    trainer = make_trainer(policy, given, config, part, seed=seed, part=Part(*span, moments=known))
    trainer.remove_callback(PrinterCallback)  # every step is in its file
    trainer.add_callback(StepLog(steps_file))
    trainer.train()
    trainer.accelerator.wait_for_everyone()  # a slower one still looks into the folder that goes now
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if config.lora_rank:
            model = model.merge_and_unload()
        shutil.rmtree(part, ignore_errors=True)
        save_policy(model, policy, part)
        if not config.lora_rank:
            torch.save(trainer.optimizer.state_dict()["state"], part / MOMENTS)
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    trainer.accelerator.wait_for_everyone()


def save_policy(model: Any, start: Path, folder: Path) -> None:
    """Write a model's weights into `folder`, beside the tokenizer of the policy it started from."""
    model.save_pretrained(folder)
    for name in KEPT:
        shutil.copy(start / name, folder)


class StepLog(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """One JSON line per step into a file, and a progress bar; of several processes the first one's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Begin anew."""
        if state.is_world_process_zero:
            self._file.write_text("", encoding="utf-8")
            self._bar = tqdm(total=state.max_steps, unit="step", desc="mpo")

    def on_log(self, _args: Any, state: Any, *_: Any, logs: Mapping[str, Any], **__: Any) -> None:
        """Write what the trainer measured in a step."""
        if self._bar is None or "loss" not in logs:
            return
        line = {name: value for name, value in logs.items() if isinstance(value, int | float)}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **line}) + "\n")
        self._bar.update(state.global_step - self._bar.n)
        self._bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Let the bar stand."""
        if self._bar is not None:
            self._bar.close()


def main() -> None:
    """Make the pass that the arguments name; see `train_phase`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name in ("policy", "pairs", "out", "steps-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--span", type=float, nargs=2, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--config", required=True, help="of MPO, as JSON")
    args = parser.parse_args()
    train_phase(
        args.policy,
        args.pairs,
        MpoConfig.model_validate_json(args.config),
        args.out,
        seed=args.seed,
        steps_file=args.steps_file,
        span=tuple(args.span),
    )


if __name__ == "__main__":
    main()
