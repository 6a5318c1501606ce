"""The configuration of a training run, read from TOML; every field has its unit and its reason."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigError(ValueError):
    """A configuration file is missing or wrong; the message names the field."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """Shape of the Qwen3-type decoder. Weights are stored as bfloat16: 2 bytes a parameter."""

    vocab_size: int = Field(ge=300, description="tokens, control tokens and all 256 bytes included")
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_tokens: int = Field(description="the model's window in tokens, prompt and completion together")


class OptimConfig(_Section):
    """Optimisation. One step sees about `batch_tokens` tokens, padding included."""

    steps: int = Field(gt=0)
    batch_tokens: int
    learning_rate: float = Field(description="peak, for embeddings and norms (AdamW)")
    matrix_learning_rate: float = Field(description="peak, for the hidden matrices (Muon)")
    weight_decay: float
    warmup_ratio: float = Field(ge=0, le=1, description="share of the steps in which the rate rises from 0")
    clip_norm: float
    dropout: float = Field(ge=0, lt=1, description="on token embeddings of the input")
    break_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of the query's words that are encoded in two parts"
    )


class RunConfig(_Section):
    """A whole run: where the data lies, what is mixed, the model, the optimiser, the seed."""

    name: str
    semantic_start: bool = Field(
        default=False, description="token embeddings start from sentence embeddings of the tokens' texts"
    )
    seed: int
    data_dir: Path = Field(description="folder that has jobs/, products/, typos/, context/, fashion/")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: all cores")
    save_every: int = Field(default=200, description="steps between resumable states")
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(description="source -> share of the examples")
    model: ModelConfig
    optim: OptimConfig


class RelevanceConfig(_Section):
    """A run that makes the relevance model. The last `steps - float_steps` steps compute as if in 8 bits."""

    name: str
    seed: int
    data_dir: Path = Field(description="folder that has jobs/, products/, fashion/")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: all cores")
    save_every: int = Field(default=100, ge=1, description="steps between resumable states")
    steps: int = Field(gt=0)
    float_steps: int = Field(ge=0)
    batch: int = Field(gt=1, description="judgements of a step, all of one source")
    crowd: int = Field(
        gt=0, description="documents drawn to their centroids, of a step whose documents have any"
    )
    learning_rate: float = Field(gt=0, description="peak (AdamW)")
    warmup_ratio: float = Field(
        default=0.1, ge=0, le=1, description="share of the steps in which it rises from 0"
    )
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(description="source -> share of the steps")


Config = TypeVar("Config", bound=_Section)


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file of a kind of run; relative paths are taken from the working directory.

    Raises:
        ConfigError: naming the file, the field and what is wrong with it.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
