"""What one judged generation is as bytes in a shared cache: written whole, checked whole when read. Pure.

A value is JSON, never anything that a reader would execute. It names the key and the weights that it belongs
to, and every type, number and word of it is checked, so that neither another program's bytes nor another
checkpoint's text can come out. (It is checked, not authenticated: who may write to the cache may write an
entry.)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from app.contracts.reasons import Drop, Reason
from app.rewrite.answer import Judged, Rewrite

if TYPE_CHECKING:
    from app.rewrite.generator import Key

# The shape of key and value below; a release that changes either raises it.
VERSION = 1


def digest_of(key: Key, scope: str) -> str:
    """SHA-256 (hex) over the scope and every field of the key, in one encoding that no two keys share."""
    named = [[field.name, getattr(key, field.name)] for field in fields(key)]
    return hashlib.sha256(json.dumps([scope, named]).encode()).hexdigest()


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class _StoredRewrite(_Strict):
    text: Annotated[str, Field(min_length=1)]
    logprob: Annotated[float, Field(le=0)]
    confidence: Annotated[float, Field(ge=0, le=1)]


class _Stored(_Strict):
    """The JSON of an entry. `key` is the digest of the key it belongs to."""

    key: str
    weights_digest: str
    checkpoint_id: Annotated[str, Field(min_length=1)]
    rewrites: list[_StoredRewrite]
    reason: Reason | None
    drops: dict[Drop, PositiveInt]

    @model_validator(mode="after")
    def _says_why_there_is_none(self) -> Self:
        if bool(self.rewrites) == bool(self.reason):
            raise ValueError("a reason exactly where there is no rewrite")
        return self


def encode(judged: Judged, *, digest: str) -> bytes:
    """The value to store.

    Raises:
        ValueError: `judged` is nothing that `decode` would return.
    """
    stored = _Stored(
        key=digest,
        weights_digest=judged.weights_digest,
        checkpoint_id=judged.checkpoint_id,
        rewrites=[
            _StoredRewrite(text=rewrite.text, logprob=rewrite.logprob, confidence=rewrite.confidence)
            for rewrite in judged.rewrites
        ],
        reason=judged.reason,
        drops=dict(judged.drops),
    )
    return stored.model_dump_json().encode()


def decode(value: bytes, *, digest: str, key: Key) -> Judged:
    """The entry in `value`; `guard_s` is 0, for no time was spent here.

    Raises:
        ValueError: it is no entry, another key's, or of other weights.
    """
    stored = _Stored.model_validate_json(value)
    if stored.key != digest or stored.weights_digest != key.weights_digest:
        raise ValueError("the entry is another key's")
    return Judged(
        rewrites=tuple(
            Rewrite(rewrite.text, rewrite.logprob, rewrite.confidence) for rewrite in stored.rewrites
        ),
        reason=stored.reason,
        drops=stored.drops,
        weights_digest=stored.weights_digest,
        checkpoint_id=stored.checkpoint_id,
    )
