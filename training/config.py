"""The configuration of a training run, read from TOML; every field has its unit and its reason."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from app.contracts.manifest import CheckpointId
from app.contracts.reasons import Drop


class ConfigError(ValueError):
    """A configuration file is missing or wrong; the message names the field."""


class Section(BaseModel):
    """A table of a TOML file: no unknown keys, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """Shape of the Qwen3-type decoder. Weights are stored as bfloat16: 2 bytes a parameter."""

    vocab_size: int = Field(ge=300, description="tokens, control tokens and all 256 bytes included")
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_tokens: int = Field(description="the model's window in tokens, prompt and completion together")


class OptimConfig(Section):
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


class RunConfig(Section):
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


class RelevanceConfig(Section):
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


class LogConfig(Section):
    """Searches to learn from, real ones as UBI events or simulated ones, and the documents they bring up."""

    corpus: Path = Field(
        description="corpus.jsonl with the documents that the log names by id, or fashion's items.jsonl"
    )
    events: tuple[Path, ...] = Field(default=(), description="UBI logs (NDJSON or OpenSearch bulk, .gz too)")
    simulated: Literal["jobs", "quiet jobs", "products", "fashion"] | None = Field(
        default=None, description="instead of events: what simulated people search for, see `training.needs`"
    )
    needs: int = Field(default=2000, gt=0, description="simulated: distinct queries")
    searches: int = Field(default=12, gt=0, description="simulated: searches for each")

    @model_validator(mode="after")
    def _real_or_simulated(self) -> Self:
        if bool(self.events) == bool(self.simulated):
            raise ValueError(
                "a log is real or simulated: name either its `events` or what is `simulated`, not both"
            )
        return self


class ReadingConfig(Section):
    """How instances are made of the logs."""

    num_random: int = Field(default=4, ge=0, description="random documents of an instance")
    most_documents: int = Field(default=4, gt=0, description="clicked, and skipped, documents of an instance")
    most_unclicked: int = Field(
        default=5000, ge=0, description="searches without a click, per log, to anchor on"
    )
    held_out_ratio: float = Field(
        default=0.1, gt=0, lt=1, description="share of the queries, by a hash, that only measure"
    )


class SampleConfig(Section):
    """How completions are drawn from the policy."""

    num_generations: int = Field(default=8, ge=2, description="of each prompt")
    temperature: float = Field(default=1.0, gt=0, description="1 is the policy itself")
    top_p: float = Field(default=0.95, gt=0, le=1, description="the least likely tokens beyond are not drawn")
    max_tokens: int = Field(default=32, gt=0, description="of a completion")
    with_query: bool = Field(
        default=False, description="rate the query itself beside what is drawn; a copy wins where no floor is"
    )
    engine: Literal["auto", "vllm", "embedded", "transformers"] = Field(
        default="auto", description="vLLM where it and a GPU are there, else embedded, else transformers"
    )
    max_model_tokens: int = Field(default=256, gt=0, description="prompt and completion together")
    vllm_arguments: dict[str, JsonValue] = Field(default={}, description="further ones of AsyncEngineArgs")


class RewardConfig(Section):
    """What a completion is worth; see `training.reward.RewardKnobs` and `training.shaping`."""

    scorers: tuple[Literal["rawrank", "finerank", "overlap"], ...] = Field(
        default=("rawrank",), min_length=1, description="heads of the relevance model, or its offline proxy"
    )
    ensemble: Literal["mean", "worst"] = Field(default="mean", description="of several scorers")
    form: Literal["ratio", "positive", "difference"] = "ratio"
    gamma: float = 2.0
    alpha: float = 0.5
    token_cost: float = Field(default=0.1, ge=0, description="nats for each token beyond the free ones")
    free_tokens: int = Field(default=12, ge=0)
    not_floored: tuple[Drop, ...] = Field(default=(), description="drops of the guard that are no floor")
    shaping: Literal["none", "par", "log_sigmoid", "clip", "delta"] = "none"
    distinct_ngrams: int = Field(default=0, ge=0, description="n of distinct-n as a factor; 0: none")


class PairConfig(Section):
    """Which completions are set against one another; see `training.pairs`."""

    k: int = Field(default=2, ge=1, description="of the best, and of the worst, of an instance")
    tie: float = Field(default=0.05, ge=0, description="rewards this close are equal")
    anchors: float = Field(default=1.0, ge=0, description="for each pair; see `training.anchors`")


class MpoConfig(Section):
    """The loss w_p · DPO + w_q · BCO + w_g · SFT (arXiv 2411.10442) and its optimiser (AdamW)."""

    beta: float = Field(default=0.1, gt=0)
    dpo_weight: float = Field(default=0.8, ge=0)
    bco_weight: float = Field(default=0.2, ge=0)
    sft_weight: float = Field(default=1.0, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0, description="peak; falls linearly to 0 over the loop")
    warmup_ratio: float = Field(default=0.05, ge=0, le=1, description="share of the loop in which it rises")
    batch: int = Field(default=32, gt=0, description="pairs of a step, over all processes")
    clip_norm: float = Field(default=1.0, gt=0)
    processes: int = Field(default=1, ge=1, description="of one machine; torchrun starts them")
    bf16: bool = Field(default=True, description="compute in bfloat16 where that is exact enough")
    lora_rank: int = Field(default=0, ge=0, description="0: all weights are trained")


class SearchesConfig(Section):
    """Which searches are read, and with which models."""

    seed: int
    data_dir: Path = Field(description="folder that has jobs/ and the others: simulation, and calibration")
    checkpoint: Path = Field(description="the incumbent: whose rewrites simulated people see")
    relevance: Path = Field(description="folder of the deployed relevance model")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: all cores")
    since: AwareDatetime | None = Field(default=None, description="the first moment whose events count")
    until: AwareDatetime | None = Field(default=None, description="the first moment whose events do not")
    simulated_from: AwareDatetime = Field(
        default=datetime(2026, 1, 1, tzinfo=UTC), description="when simulated people begin"
    )
    logs: tuple[LogConfig, ...] = Field(min_length=1)
    reading: ReadingConfig = ReadingConfig()
    sampling: SampleConfig = SampleConfig()

    @property
    def num_threads(self) -> int:
        """`threads`, counted."""
        return self.threads or os.cpu_count() or 1

    @model_validator(mode="after")
    def _each_simulation_once(self) -> Self:
        kinds = [log.simulated for log in self.logs if log.simulated]
        if len(set(kinds)) < len(kinds):
            raise ValueError(
                "`logs` simulates the same searches twice: raise `needs` or `searches` of one log"
            )
        return self


class LoopConfig(SearchesConfig):
    """`corewrite train loop`: phases of sampling, scoring and one pass over the pairs.

    The policy starts as `checkpoint`, and is measured against it.
    """

    name: CheckpointId = Field(description="also of the checkpoint that comes of it")
    phases: int = Field(gt=0)
    instances: int = Field(gt=0, description="of a phase, drawn from all logs; the last ones wrap around")
    measure_every: int = Field(
        default=1, gt=0, description="phases between measurements; the first and the last always are measured"
    )
    reward: RewardConfig = RewardConfig()
    pairs: PairConfig = PairConfig()
    mpo: MpoConfig = MpoConfig()


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` with `changes`, tables within tables too."""
    inner = {
        name: merged(table[name], value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return {**table, **inner}


Config = TypeVar("Config", bound=Section)


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
