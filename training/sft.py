"""Supervised fine-tuning from scratch: minimise -ln p(rewrite | prompt), the prompt's own tokens not scored.

Hidden matrices are trained by Muon (Jordan et al. 2024, as in torch.optim.Muon), the rest by AdamW.
Resumable: the state is saved at the borders of example pools, and the data depends on the seed alone, so a
run that was interrupted ends with the same weights as one that was not (same machine, same threads).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

from app.contracts.prompt import CONTROL_TOKENS, END, PAD
from training.config import ModelConfig, OptimConfig, RunConfig
from training.mixture import Encoded, Mixture, batches
from training.retrieval import Floats, embed
from training.tokenizer import train_tokenizer

IGNORED = -100
INITIAL_STD = 0.02
"""Of weights as transformers draws them."""


@dataclass
class State:
    """What a run needs to go on: model, optimisers, and how far it is."""

    model: Qwen3ForCausalLM
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    pool: int = 0

    def save(self, path: Path) -> None:
        """Write to `path` through a temporary file: a killed run leaves the old state whole."""
        part = path.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "step": self.step,
            "pool": self.pool,
        }
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        torch.set_rng_state(saved["rng"])
        on_gpus = saved.get("rng_cuda", [])
        if on_gpus and len(on_gpus) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(on_gpus)
        self.step, self.pool = saved["step"], saved["pool"]


def new_model(shape: ModelConfig) -> Qwen3ForCausalLM:
    """Make a Qwen3-type model with random weights (of torch's current seed) and tied embeddings."""
    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_tokens,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=CONTROL_TOKENS.index(END),
        pad_token_id=CONTROL_TOKENS.index(PAD),
    )
    model = Qwen3ForCausalLM(config)
    # The fused kernel's backward pass is slow on a CPU where sequences are short: 1.4 times the whole step.
    model.set_attn_implementation("eager")
    return model


def token_meanings(tokenizer: Tokenizer, size: int) -> Floats:
    """Return [vocabulary, size]: sentence embeddings of the tokens' texts, centred and cut by PCA to `size`.

    The scale is that of freshly drawn embeddings. Words that mean alike start alike, which 39,000 titles
    cannot teach of rare words.
    """
    texts = [tokenizer.decode([token]).strip() or "?" for token in range(tokenizer.get_vocab_size())]
    vectors = embed(texts)
    vectors -= vectors.mean(axis=0)
    _, _, components = np.linalg.svd(vectors, full_matrices=False)
    projected = vectors @ components[:size].T
    return np.asarray(projected * (INITIAL_STD / projected.std()), dtype=np.float32)


@torch.no_grad()
def start_from(model: Qwen3ForCausalLM, embeddings: Floats) -> None:
    """Put `embeddings` [vocabulary, hidden size] in place of the model's token embeddings."""
    model.model.embed_tokens.weight.copy_(torch.from_numpy(embeddings))


def new_optimizers(model: Qwen3ForCausalLM, optim: OptimConfig) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings and norms."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]  # noqa: PLR2004
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]  # noqa: PLR2004
    return [
        torch.optim.Muon(
            hidden,
            lr=optim.matrix_learning_rate,
            weight_decay=optim.weight_decay,
            adjust_lr_fn="original",
        ),
        torch.optim.AdamW(rest, lr=optim.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def tensors(batch: list[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids [rows, tokens] padded on the right, and labels [rows, tokens] of the next token.

    Labels of prompt and padding are `IGNORED`. No attention mask is needed: under causal attention nothing
    that is scored looks at the padding.
    """
    width = max(map(len, batch))
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), IGNORED)
    for row, item in enumerate(batch):
        ids[row, : len(item)] = torch.tensor(item.prompt + item.target)
        labels[row, len(item.prompt) - 1 : len(item) - 1] = torch.tensor(item.target)
    return ids, labels


def target_logits(
    model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor, dropout: float = 0.0
) -> torch.Tensor:
    """Return logits [scored tokens, vocabulary] in fp32: the output layer is computed only where scored."""
    embedded = functional.dropout(model.model.embed_tokens(ids), dropout)
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = model.model(inputs_embeds=embedded).last_hidden_state[labels != IGNORED]
        logits: torch.Tensor = model.lm_head(hidden)
    return logits.float()


def rate(step: int, optim: OptimConfig) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then linear to 0."""
    warmup = max(1, round(optim.steps * optim.warmup_ratio))
    return min((step + 1) / warmup, (optim.steps - step) / max(1, optim.steps - warmup))


def train(config: RunConfig, run_dir: Path) -> tuple[Qwen3ForCausalLM, Tokenizer]:
    """Train, or go on with, the run in `run_dir`; one JSON line per step goes to `steps.jsonl`."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    mixture = cache(lambda: Mixture(config.mixture, config.data_dir))  # minutes: not for a run that is done
    tokenizer_file, state_file = run_dir / "tokenizer.json", run_dir / "state.pt"
    if not tokenizer_file.exists():
        train_tokenizer(mixture().texts(config.seed), config.model.vocab_size).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = new_model(config.model)
    if config.semantic_start:
        start_from(model, token_meanings(tokenizer, config.model.hidden_size))
    model.to(device).train()
    state = State(model, new_optimizers(model, config.optim))
    if state_file.exists():
        state.load(state_file)
    log_file = run_dir / "steps.jsonl"
    forget_after(log_file, state.step)
    saved_at = state.step
    with (
        log_file.open("a", encoding="utf-8") as log,
        tqdm(total=config.optim.steps, initial=state.step, unit="step", desc=config.name) as bar,
    ):
        while state.step < config.optim.steps:
            if state.step - saved_at >= config.save_every:
                state.save(state_file)
                saved_at = state.step
            for batch in batches(
                mixture(),
                tokenizer,
                seed=config.seed,
                pool=state.pool,
                batch_tokens=config.optim.batch_tokens,
                max_tokens=config.model.max_tokens,
                break_ratio=config.optim.break_ratio,
            ):
                if state.step == config.optim.steps:
                    break
                started = time.perf_counter()
                loss, tokens = _step(state, batch, config.optim, device)
                seconds = time.perf_counter() - started
                line = {"step": state.step, "loss": loss, "tokens": tokens, "seconds": round(seconds, 4)}
                log.write(json.dumps(line) + "\n")
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update()
            state.pool += 1
            log.flush()
    state.save(state_file)
    model.eval()
    return model, tokenizer


def _step(state: State, batch: list[Encoded], optim: OptimConfig, device: torch.device) -> tuple[float, int]:
    ids, labels = (part.to(device) for part in tensors(batch, CONTROL_TOKENS.index(PAD)))
    logits = target_logits(state.model, ids, labels, optim.dropout)
    loss = functional.cross_entropy(logits, labels[labels != IGNORED])
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip_norm)
    share = rate(state.step, optim)
    for optimizer, peak in zip(
        state.optimizers, (optim.matrix_learning_rate, optim.learning_rate), strict=True
    ):
        for group in optimizer.param_groups:
            group["lr"] = peak * share
        optimizer.step()
        optimizer.zero_grad()
    state.step += 1
    return float(loss.detach()), int(ids.numel())


def forget_after(log_file: Path, step: int) -> None:
    """Drop the log lines of steps that a resumed run will take again."""
    if log_file.exists():
        lines = log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        log_file.write_text("".join(lines[:step]), encoding="utf-8")
