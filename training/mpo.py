"""Mixed Preference Optimization: w_p · DPO + w_q · BCO + w_g · SFT over pairs (InternVL, arXiv 2411.10442).

    DPO   -ln sigmoid(r_c - r_r)                        which of the two is better (arXiv 2305.18290)
    BCO   -ln sigmoid(r_c - δ) - ln sigmoid(δ - r_r)    how good each is alone (arXiv 2404.04656)
    SFT   -mean ln π(token of the chosen one)           how to write the better one

with r = β · ln (π / π_ref) of a completion, π_ref the policy at the start of the phase, and δ the mean reward
of the steps so far. The trainer is TRL's, which brings accelerate, FSDP and DeepSpeed; what it lacks is δ.
The reference is what drew the completions, so its log-probabilities are known: no second model is needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl.trainer import utils as trl_utils
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from training.config import MpoConfig

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # a training run tells nobody that it runs
# Where there is no Triton, TRL reads out every position, the prompt's too, for the sake of accelerators that
# recompile for each shape. On a CPU that is two to three times the work; the losses are the same.
trl_utils._use_triton = lambda _device: True  # noqa: SLF001

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
REWARDS = ("rewards/chosen", "rewards/rejected")


@dataclass(frozen=True, slots=True)
class PairIds:
    """A prompt and two completions as TRL's collator wants them.

    Args:
        prompt_ids, chosen_ids, rejected_ids: tokens, end tokens included.
        ref_chosen_logps, ref_rejected_logps: ln π_ref of the completions, in nats.
        margin: by how much the reward of one is better.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    ref_chosen_logps: float
    ref_rejected_logps: float
    margin: float


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a loop a pass is, as shares of the whole, and AdamW's moments after the one before."""

    start: float = 0.0
    end: float = 1.0
    moments: dict[int, Any] | None = None


class MpoTrainer(DPOTrainer):  # type: ignore[misc]  # TRL is untyped
    """TRL's trainer, whose `bco_pair` is shifted by δ.

    A reference raised by δ/β turns r into r - δ: just what BCO wants. DPO sees only r_c - r_r and SFT no
    reference, so both stay as they are.
    """

    def __init__(self, *args: Any, warmup_ratio: float, part: Part, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._warmup_ratio, self._part = warmup_ratio, part
        self.weights: dict[str, float] = dict(zip(self.loss_types, self.args.loss_weights, strict=True))
        self.shift = RunningMean()
        self.add_callback(_EndOfStep(self.shift))

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        """Leave it: pairs are token ids already, those that were drawn."""
        return dataset

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, which goes on with the moments of the phase before."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self._part.moments:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": self._part.moments})
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Up in the first share of the loop, then linearly to 0 at its end."""
        start, end = self._part.start, self._part.end

        def share(step: int) -> float:
            before, after = (start + (end - start) * n / num_training_steps for n in (step, step + 1))
            return min(after / self._warmup_ratio if self._warmup_ratio else 1.0, 1.0 - before)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        """Leave it: whoever drew the completions knows."""
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:  # noqa: FBT001 - TRL's
        # SFT is a mean over the tokens of one process; weighted so, the mean over processes is that over all.
        tokens = inputs["completion_mask"][:, 1:].chunk(2)[0].sum()
        share = float(tokens / self.accelerator.gather(tokens).float().mean())
        self.loss_weights = [w * share if kind == "sft" else w for kind, w in self.weights.items()]
        shifted = {name: inputs[name] + self.shift.value / self.beta for name in REFERENCE}
        found = super()._compute_loss(model, {**inputs, **shifted}, return_outputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in REWARDS:  # which TRL has gathered over all processes, less the shift
            metrics[name][-1] += self.shift.value
        if self.model.training:
            self.shift.see(sum(metrics[name][-1] for name in REWARDS) / len(REWARDS))
        metrics["rewards/shift"].append(self.shift.value)
        return found


WHOLE = Part()


class RunningMean:
    """The mean over the steps that have ended; what is seen within a step counts when it ends."""

    def __init__(self) -> None:
        self.value, self._steps = 0.0, 0
        self._seen: list[float] = []

    def see(self, value: float) -> None:
        """One batch of the step."""
        self._seen.append(value)

    def end_step(self) -> None:
        """Take in what was seen."""
        self._steps += 1
        self.value += (sum(self._seen) / len(self._seen) - self.value) / self._steps
        self._seen = []


def make_trainer(
    policy: Path,
    pairs: Sequence[PairIds],
    config: MpoConfig,
    scratch: Path,
    *,
    seed: int,
    part: Part = WHOLE,
) -> MpoTrainer:
    """Return a trainer for one pass over `pairs`. It writes to `scratch` if to anything."""
    on_gpu = torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    lora = None
    if config.lora_rank:
        lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    arguments = DPOConfig(
        output_dir=str(scratch),
        seed=seed,
        loss_type=["sigmoid", "bco_pair", "sft"],
        loss_weights=[config.dpo_weight, config.bco_weight, config.sft_weight],
        beta=config.beta,
        learning_rate=config.learning_rate,
        max_grad_norm=config.clip_norm,
        per_device_train_batch_size=config.batch // processes,
        num_train_epochs=1,
        max_length=None,
        precompute_ref_log_probs=True,
        ddp_find_unused_parameters=False,
        activation_checkpointing=False,
        bf16=config.bf16,
        use_cpu=not on_gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )
    return MpoTrainer(
        # As in training/sft.py: on a CPU the fused kernel's backward pass is slow where sequences are short.
        model=AutoModelForCausalLM.from_pretrained(
            policy, dtype=torch.float32, attn_implementation="sdpa" if on_gpu else "eager"
        ),
        args=arguments,
        train_dataset=Dataset.from_list([asdict(pair) for pair in pairs]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy),
        peft_config=lora,
        warmup_ratio=config.warmup_ratio,
        part=part,
    )


class _EndOfStep(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    def __init__(self, shift: RunningMean) -> None:
        self._shift = shift

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._shift.end_step()
