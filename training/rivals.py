"""What the loop is compared with: GRPO and online DPO, on the same instances with the same reward.

Each step draws from the policy as it is, rates what was drawn, and makes one update of it.

    grpo        rewards against those of their group, in its deviations (arXiv 2402.03300). TRL's defaults:
                the mean over tokens of DAPO (arXiv 2503.14476), no reference and so no KL term
    online_dpo  DPO on the better and the worse of two completions, ties too, with the loop's beta and the
                policy of the start for reference (arXiv 2402.04792)

A step sees as many completions as one of the loop: two for each of `mpo.batch`. The learning rate cannot fall
to 0 at an end that the budgets make: it rises to `mpo.learning_rate` and stays. All weights are trained, by
one process, on the CPU.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # online DPO warns that it may change; TRL is pinned
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from app.contracts.prompt import render
from app.engines.decoding import Hypothesis
from app.engines.text import completions_of, read_tokenizer
from training.config import ConfigError, LoopConfig
from training.datasets.instances import Instance
from training.loop import phase_folder
from training.mpo_phase import save_policy
from training.rating import RatedCompletion, Rater

Kind = Literal["grpo", "online_dpo"]
Budget = Literal["seconds", "tokens"]
WARMUP_STEPS = 10


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a rival may spend.

    Args:
        seconds: of drawing, rating and training; writing snapshots is not counted.
        tokens: of completions that a loss was computed on, end tokens included.
    """

    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The policy after the step that spent a budget, and what it had cost by then."""

    budget: Budget
    folder: Path
    steps: int
    seconds: float
    tokens: int


def train_rival(
    kind: Kind,
    config: LoopConfig,
    instances: Sequence[Instance],
    rater: Rater,
    out: Path,
    *,
    budgets: Budgets,
) -> list[Snapshot]:
    """Train from `config.checkpoint` until both budgets are spent; return the policy where each was.

    They lie in `by-seconds` and `by-tokens` of `out`: weights in float32, and the tokenizer.

    Raises:
        ConfigError: a step's completions are no whole groups, or of more instances than there are.
        RelevanceError: the relevance model cannot answer.
    """
    completions = 2 * config.mpo.batch
    group = config.sampling.num_generations if kind == "grpo" else 2
    if completions % group or completions // group > len(instances):
        raise ConfigError(
            f"a step's {completions} completions must be groups of {group} for some of "
            f"{len(instances)} instances: change mpo.batch or sampling.num_generations"
        )
    shared: dict[str, Any] = {
        "output_dir": str(out),
        "seed": config.seed,
        "max_steps": sys.maxsize,
        "learning_rate": config.mpo.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": WARMUP_STEPS,
        "max_grad_norm": config.mpo.clip_norm,
        "temperature": config.sampling.temperature,
        "top_p": config.sampling.top_p,
        "generation_kwargs": {"use_cache": True},  # or the checkpoint decides, and says no
        "dataloader_drop_last": True,
        "activation_checkpointing": False,
        "bf16": config.mpo.bf16,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    longest = config.sampling.max_tokens
    if kind == "grpo":
        shared |= {"per_device_train_batch_size": completions, "num_generations": group}
        make, arguments = GRPOTrainer, GRPOConfig(max_completion_length=longest, **shared)
    else:  # whose batch counts prompts
        shared |= {"per_device_train_batch_size": completions // group, "beta": config.mpo.beta}
        make, arguments = OnlineDPOTrainer, OnlineDPOConfig(max_new_tokens=longest, **shared)
    set_seed(config.seed)
    start = config.checkpoint
    judge = Judge(instances, rater, start)
    meter = _Meter(budgets, judge, start, out)
    prompts = [render(instance.query, instance.context) for instance in instances]
    trainer = make(
        model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="eager"),
        reward_funcs=judge,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts, "place": range(len(prompts))}),
        processing_class=PreTrainedTokenizerFast.from_pretrained(start),
        callbacks=[meter],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return list(meter.snapshots.values())


def gradient_tokens(run_dir: Path, phases: int) -> int:
    """Return `Budgets.tokens` of a finished loop: a completion counts in each of its pairs."""
    files = [phase_folder(run_dir, phase) / "pairs.jsonl" for phase in range(1, phases + 1)]
    pairs = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs)


class Judge:
    """A reward function as TRL wants one: the rater's rewards, and a count of the tokens it was shown."""

    def __init__(self, instances: Sequence[Instance], rater: Rater, checkpoint: Path) -> None:
        self._instances, self._rater = instances, rater
        self._tokenizer, self._end_id = read_tokenizer(checkpoint)
        self.tokens = 0

    def __call__(self, *, completion_ids: Sequence[list[int]], place: Sequence[int], **_: Any) -> list[float]:
        """Return the reward of each completion; `place` says which instance it is for."""
        drawn = completions_of(self._tokenizer, map(self._hypothesis, completion_ids))
        self.tokens += sum(len(one.token_ids) for one in drawn)
        groups = {number: [row for row, other in enumerate(place) if other == number] for number in place}
        instances = [self._instances[number] for number in groups]
        members = [[drawn[row] for row in rows] for rows in groups.values()]
        rated = asyncio.run(self._rater.rate(instances, members))
        rewards = chain.from_iterable(map(with_near_floor, rated))
        return [reward for _, reward in sorted(zip(chain(*groups.values()), rewards, strict=True))]

    def _hypothesis(self, ids: list[int]) -> Hypothesis:
        """Cut off the padding. TRL does not say how likely the rest is, and no reward asks."""
        if self._end_id not in ids:
            return Hypothesis(tuple(ids), math.nan, "length")
        return Hypothesis(tuple(ids[: ids.index(self._end_id) + 1]), math.nan, "stop")


def with_near_floor(group: Sequence[RatedCompletion]) -> list[float]:
    """Return the rewards of a group, the floor drawn up to 1 nat below the worst that is not on it.

    GRPO divides by the group's deviation: beside a floor tens of nats down all else would look alike.
    """
    least = min((one.reward for one in group if not one.floored), default=0.0) - 1.0
    return [max(one.reward, least) for one in group]


class _Meter(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Counts what is spent, writes a snapshot where a budget is, and ends the training with the second."""

    def __init__(self, budgets: Budgets, judge: Judge, start: Path, out: Path) -> None:
        self._budgets, self._judge, self._start, self._out = budgets, judge, start, out
        self._seconds = self._since = 0.0
        self.snapshots: dict[Budget, Snapshot] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = perf_counter()

    def on_step_end(self, _args: Any, state: Any, control: Any, *, model: Any, **__: Any) -> None:
        self._seconds += perf_counter() - self._since
        spent: dict[Budget, bool] = {
            "seconds": self._seconds >= self._budgets.seconds,
            "tokens": self._judge.tokens >= self._budgets.tokens,
        }
        for budget, over in spent.items():
            if over and budget not in self.snapshots:
                self._keep(budget, state.global_step, model)
        control.should_training_stop = all(spent.values())
        self._since = perf_counter()

    def _keep(self, budget: Budget, steps: int, model: Any) -> None:
        folder = self._out / f"by-{budget}"
        save_policy(model, self._start, folder)
        self.snapshots[budget] = Snapshot(budget, folder, steps, self._seconds, self._judge.tokens)
