"""Every setting of the service: its meaning, its unit, and why the default is what it is.

Precedence, highest first:

1. command-line options of `corewrite serve` and `corewrite rewrite` (`--port` beats `REWRITE_PORT`);
2. environment variables `REWRITE_<NAME>`;
3. the defaults below, and those of app/http, app/signals, app/rollout and app/tracing (settings.py in each).

There is no settings file: one source per deployment keeps "what is it running with?" answerable.
`docs/settings.md` is written by `python -m app.reference settings`; a test fails when the two disagree.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from app.credentials import PublicUrl, Token
from app.http.settings import HttpSettings
from app.rollout.settings import RolloutSettings
from app.signals.settings import SignalSettings
from app.tracing.settings import TracingSettings

DEFAULT_CHECKPOINT = Path(__file__).parent / "registry" / "default"


class Settings(RolloutSettings, SignalSettings, TracingSettings, HttpSettings):
    """What one process of the service runs with; frozen, read once at start."""

    model_config = SettingsConfigDict(
        env_prefix="REWRITE_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    engine: Literal["embedded", "vllm", "openai"] = Field(
        default="embedded",
        description=(
            "What computes. embedded: ONNX Runtime on this machine's CPU. vllm: vLLM in this process, for a "
            "GPU; needs corewrite[vllm]. openai: a remote fleet of vLLM servers; needs corewrite[openai]. "
            "embedded: it needs nothing else."
        ),
    )
    vllm_arguments: dict[str, JsonValue] = Field(
        default={},
        description=(
            "JSON object of further arguments of vLLM's AsyncEngineArgs, such as "
            '`{"gpu_memory_utilization": 0.5}`. Empty: vLLM\'s own defaults.'
        ),
    )
    openai_url: PublicUrl = Field(
        default="http://127.0.0.1:8000",
        description=(
            "Base URL of the fleet; `{id}` in it stands for the checkpoint's id, where each has a fleet of "
            "its own. The default is where `vllm serve` listens."
        ),
    )
    openai_model: str = Field(
        default="{id}",
        description="Name under which the fleet serves the checkpoint. The default is the checkpoint's id.",
    )
    openai_api_key: Token | None = Field(
        default=None, description="Bearer token for the fleet. Unset: none is sent."
    )
    openai_adapters: str | None = Field(
        default=None,
        description=(
            "Path, as the fleet sees it, of the LoRA adapter that makes a checkpoint, `{id}` being its id; "
            "it is loaded when the checkpoint is activated. Unset: the fleet serves whole checkpoints."
        ),
    )
    checkpoint: Path = Field(
        default=DEFAULT_CHECKPOINT,
        description="Folder of the checkpoint to serve. The default one comes with the package.",
    )
    checkpoints: Path | None = Field(
        default=None,
        description=(
            "Folder that holds checkpoints that may be activated, each in a folder named by its id. Unset: "
            "the one that holds REWRITE_CHECKPOINT."
        ),
    )
    registry: PublicUrl | None = Field(
        default=None,
        description=(
            "URL of the checkpoint registry: a folder, `s3://bucket/prefix` (needs corewrite[s3]) or "
            "`gs://bucket/prefix` (corewrite[gcs]). `corewrite checkpoints` uses it. Unset: its --registry."
        ),
    )
    signers: Path | None = Field(
        default=None,
        description=(
            "PEM file of Ed25519 public keys, one of which must have signed a checkpoint before it is loaded "
            "or pulled, but for the package's own (needs corewrite[signing]). Unset: none is asked for."
        ),
    )
    activation_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description=(
            "Seconds that loading and proving another checkpoint may take. 300: vLLM takes one minute where "
            "it compiles, and nobody waits for it but the one who asked."
        ),
    )
    deadline_ms: int = Field(
        default=500,
        ge=1,
        le=60_000,
        description=(
            "Milliseconds one rewrite may take where neither body nor header asks for less; it also caps "
            "both. 500: a beam of 4 takes about a fifth of it on two busy cores, and a search page that "
            "waits longer than half a second for an optional signal has lost more than it gains."
        ),
    )
    batch_deadline_ms: int = Field(
        default=10_000,
        ge=1,
        le=60_000,
        description=(
            "As REWRITE_DEADLINE_MS, for all items of a batch together. 10 s: 256 unseen queries take about "
            "2 s on two idle cores, and nobody watches a page load behind a batch."
        ),
    )
    generation_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description=(
            "Seconds after which a generation is cancelled even in the background. 10: far beyond any real "
            "one, so that only a hung engine meets it."
        ),
    )

    breaker_max_failures: int = Field(
        default=5,
        ge=1,
        description=(
            "Failures of the engine in a row after which it is left alone. 5: not bad luck any more. Callers "
            "that give up, full queues and prompts that do not fit are no failures."
        ),
    )
    breaker_open_s: float = Field(
        default=5.0,
        gt=0,
        description=(
            "Seconds before one request is let through as a probe. 5: soon enough to notice a recovery, and "
            "one failed request in that time is all that a sick engine costs."
        ),
    )

    max_inflight: int = Field(
        default=128,
        ge=1,
        description=(
            "Requests worked on at a time. 128: what two cores generate within the default deadline; more "
            "would only wait in the engine's queue, out of sight of admission."
        ),
    )
    max_waiting: int = Field(
        default=256,
        ge=0,
        description="Requests that may wait for admission; the next is shed with 429. 256: two rounds.",
    )
    max_wait_ms: int = Field(
        default=100,
        ge=0,
        description=(
            "Milliseconds a request waits for admission before it is shed with 429. 100: a fifth of the "
            "default deadline, so that what is admitted late can still be answered."
        ),
    )
    retry_after_s: int = Field(
        default=1,
        ge=1,
        description="Seconds in the Retry-After header of a shed request. 1: the smallest it can say.",
    )
    max_batches: int = Field(
        default=8,
        ge=1,
        description="Batch requests worked on at a time; as many may wait. 8: 2,048 parsed items in memory.",
    )
    batch_concurrency: int = Field(
        default=32,
        ge=1,
        description=(
            "Batch items worked on at a time, over all batches. 32: enough to keep the engine full, and a "
            "quarter of REWRITE_MAX_INFLIGHT, so that batches cannot starve single requests."
        ),
    )
    mode: Literal["online", "nearline", "auto"] = Field(
        default="online",
        description=(
            "What a cache miss does where the request does not say. online: waits for the engine, up to the "
            "deadline. nearline: answers with the original at once and queues the generation for the next "
            "who asks. auto: online where there is a place at once and the time left is what a generation "
            "takes now, else nearline. online: a first query is answered as well as a second."
        ),
    )
    nearline_max_queue: int = Field(
        default=1024,
        ge=0,
        description=(
            "Near-line misses that may wait to be generated; one more drops the oldest. 1024: what two cores "
            "generate in some ten seconds, after which the query has gone cold."
        ),
    )
    nearline_concurrency: int = Field(
        default=8,
        ge=1,
        description=(
            "Near-line generations at a time. 8: they fill the engine's batch without delaying those that "
            "somebody waits for."
        ),
    )
    max_background: int = Field(
        default=32,
        ge=0,
        description=(
            "Generations that may go on after nobody waits for them, to warm the cache; one more is "
            "cancelled. 32: the engine clears them within its next few batches; 0 gives up at the deadline."
        ),
    )

    cache_entries: int = Field(
        default=100_000,
        ge=0,
        description="Judged generations kept in memory (about 1 kB each: 100 MB when full). 0: no cache.",
    )
    cache_ttl_s: float = Field(
        default=86_400.0,
        gt=0,
        description=(
            "Seconds an entry lives. A day: an entry is a function of the weights in its key and cannot go "
            "stale; the limit only lets go of what nobody asks for any more."
        ),
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description=(
            "URL of a Redis (`redis://`, `rediss://`, `unix://`) in which replicas share judged generations; "
            "needs corewrite[redis]. Unset: each replica has its own memory only."
        ),
    )
    redis_timeout_ms: int = Field(
        default=25,
        ge=1,
        description=(
            "Milliseconds a look-up in Redis may take; then it is a miss. 25: a tenth of a generation, and a "
            "hundred times what a healthy one takes."
        ),
    )

    beam_width: int = Field(
        default=4,
        ge=1,
        le=16,
        description="Width of the beam. 4: the most rewrites a request may ask for, so one entry serves all.",
    )
    max_tokens: int = Field(
        default=32,
        ge=1,
        description="Tokens a rewrite may have. 32: the 99.9th percentile of real queries is below 20.",
    )
    max_model_tokens: int | None = Field(
        default=None,
        ge=16,
        description=(
            "Tokens of prompt and rewrite together; longer prompts are `input_too_long`. Unset: the window "
            "the model was trained with. Less saves memory."
        ),
    )
    engine_threads: int = Field(
        default=0,
        ge=0,
        description="Threads of the embedded engine; 0 takes every core this process may run on.",
    )
    engine_max_batch: int = Field(
        default=32,
        ge=1,
        description=(
            "Rows the embedded engine computes together; a beam takes its width. 32: eight beams of 4; "
            "more gains two cores little."
        ),
    )
    engine_max_queue: int = Field(
        default=256,
        ge=1,
        description="Requests that may wait inside the engine. 256: twice REWRITE_MAX_INFLIGHT, never full.",
    )

    min_confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=(
            "Calibrated probability (0..1) below which a rewrite is withheld (`low_confidence`). Unset: the "
            "threshold chosen with the checkpoint, which knows its own calibration."
        ),
    )
    max_rewrite_chars: int = Field(
        default=256,
        ge=1,
        description="Characters a rewrite may have (guard: `too_long`). 256: half of the longest query.",
    )
    max_rewrite_ratio: float = Field(
        default=8.0,
        gt=0,
        description=(
            "Times the characters of query and context that a rewrite may have, above 96 characters. 8: "
            'abbreviations grow most, and "rn" to "registered nurse" is the measure.'
        ),
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe level logged. info: one line per request.",
    )
    log_queries: bool = Field(
        default=False,
        description="True logs raw queries. False logs hash and length only: queries are personal data.",
    )
    log_hash_key: SecretStr | None = Field(
        default=None,
        description=(
            "Key of the query hash in logs (HMAC-SHA-256). Unset: plain SHA-256, with which common queries "
            "can be guessed; set it where logs leave the team."
        ),
    )

    @model_validator(mode="after")
    def _knows_every_variable(self) -> Settings:
        # A misspelt variable that is passed over in silence is a setting somebody believes in.
        prefix = Settings.model_config["env_prefix"]
        known = [f"{prefix}{name.upper()}" for name in Settings.model_fields]
        for name in os.environ:
            if name.upper().startswith(prefix) and name.upper() not in known:
                near = get_close_matches(name.upper(), known, n=1)
                hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists all"
                raise ValueError(
                    f"{name} is no setting: {hint} (in Kubernetes, a Service named rewrite sets variables of "
                    "this prefix unless the pod has enableServiceLinks: false)"
                )
        return self

    @model_validator(mode="after")
    def _batches_leave_room(self) -> Settings:
        if self.batch_concurrency > self.max_inflight:
            raise ValueError("REWRITE_BATCH_CONCURRENCY may not exceed REWRITE_MAX_INFLIGHT")
        return self
