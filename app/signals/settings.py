"""The settings of `/v1/signals`; app/settings.py has the others, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from app.contracts.fusion import FINERANK_WEIGHT, MAX_FACTOR, RAWRANK_WEIGHT
from app.credentials import PublicUrl, Token
from app.relevance.choice import DEFAULT_RELEVANCE


class SignalSettings(BaseSettings):
    """A part of `app.settings.Settings`."""

    relevance: Literal["onnx", "remote", "none"] = Field(
        default="onnx",
        description=(
            "Where scores and embeddings come from. onnx: this process, by ONNX Runtime; remote: a server "
            "that answers /v1/rerank and /v1/embeddings; none: ranking stages stay neutral. onnx: the "
            "package comes with a model."
        ),
    )
    relevance_path: Path = Field(
        default=DEFAULT_RELEVANCE,
        description=(
            "Folder of the relevance model, for onnx: manifest, graph, tokenizer. The one in the package: "
            "signals work before anybody trained one."
        ),
    )
    relevance_provider: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where ONNX Runtime computes; cuda needs onnxruntime-gpu. cpu: it is there.",
    )
    relevance_threads: int = Field(
        default=1,
        ge=1,
        description="Threads of one run of the relevance model. 1: the engine has the other cores.",
    )
    relevance_memory_entries: int = Field(
        default=10_000,
        ge=0,
        description=(
            "Documents whose embeddings are remembered, for onnx. 10,000: those that many searches share, in "
            "some 20 MB; they cost no rawrank again."
        ),
    )
    relevance_url: PublicUrl | None = Field(
        default=None,
        description="Base URL of the server, for remote; with or without /v1. None: there is no usual one.",
    )
    relevance_model: str | None = Field(
        default=None, description="Name under which the server has the model, for remote. None: as the URL."
    )
    relevance_api_key: Token | None = Field(
        default=None,
        description="Sent to the server as a bearer token, for remote. None: one's own asks for none.",
    )
    signals_deadline_ms: int = Field(
        default=1_000,
        ge=1,
        le=60_000,
        description=(
            "As REWRITE_DEADLINE_MS, for the rewrite and all stages of a signals request together. 1 s: "
            "a rewrite that took all of its own deadline leaves as much for the stages."
        ),
    )
    max_signals: int = Field(
        default=32,
        ge=1,
        description=(
            "Signals requests worked on at a time; as many may wait. 32: the relevance model has the cores "
            "for few, and what waits in its queue is out of sight of admission."
        ),
    )
    rawrank_weight: float = Field(
        default=RAWRANK_WEIGHT,
        ge=0,
        allow_inf_nan=False,
        description=(
            "b of rawrank: the exponent of a rewrite of confidence 1 in the factor of a document; one of "
            "confidence 0.2 or less weighs nothing. 0 switches the stage off (`disabled`). 0.5: on held-out "
            "titles more gains little, and those of unknown occupations begin to lose."
        ),
    )
    finerank_weight: float = Field(
        default=FINERANK_WEIGHT,
        ge=0,
        allow_inf_nan=False,
        description="As REWRITE_RAWRANK_WEIGHT, for finerank. 1.5: beyond it held-out titles hardly gain.",
    )
    max_factor: float = Field(
        default=MAX_FACTOR,
        ge=1,
        allow_inf_nan=False,
        description=(
            "c: the largest factor by which rewrites may ever raise or lower a document's score; 1 makes "
            "every stage neutral. 100: a smaller one keeps less of what right rewrites gain (docs/LOG.md); "
            "confidence, in the exponent, binds a doubtful one far below it."
        ),
    )
    signal_memory_s: float = Field(
        default=60.0,
        gt=0,
        description=(
            "Seconds for which the answer of a query_id is kept for its later stages, so that all see the "
            "same rewrites and checkpoint. 60: the stages of a search follow within one."
        ),
    )
    signal_memory_entries: int = Field(
        default=10_000,
        ge=0,
        description=(
            "Searches kept so at a time (a few kB each, some 20 with long contexts); one more lets go of the "
            "one longest unused. 10,000: a minute of 160 searches a second. 0: none."
        ),
    )
    max_signals_body_bytes: int = Field(
        default=8_388_608,
        ge=1024,
        description="Bytes of one signals body; more is 413. 8 MiB: 1,000 candidates of 8 KiB.",
    )

    @model_validator(mode="after")
    def _model_is_named(self) -> SignalSettings:
        if self.relevance == "remote" and not (self.relevance_url and self.relevance_model):
            raise ValueError("relevance=remote needs relevance_url and relevance_model")
        return self
