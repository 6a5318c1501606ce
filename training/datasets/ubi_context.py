"""The context of a search as a log has it: `query_attributes.context` of its `ubi_queries` document.

It has the shape of the context of a /v1/rewrite request: whoever asks for a rewrite can log what was sent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from app.contracts.prompt import NO_CONTEXT, Context
from app.http.schemas import WireContext


class ContextError(ValueError):
    """What a log has as a context has not the shape of one; the message says where."""


def canonical(logged: object) -> str:
    """Return the one spelling, as JSON, of all that are the same context; "" where nothing is known.

    Raises:
        ContextError: it has another shape.
    """
    if logged is None:
        return ""
    try:
        wire = WireContext.model_validate(logged)
    except ValidationError as error:
        raise ContextError(str(error)) from error
    # An item's id says nothing to the rewriter.
    return wire.model_dump_json(exclude={"last_item": {"id"}}) if wire.to_context() else ""


def context_of(spelling: str) -> Context:
    """Return the context that `canonical` spelt so."""
    return WireContext.model_validate_json(spelling).to_context() if spelling else NO_CONTEXT


def query_attributes(context: Context) -> dict[str, Any]:
    """Return what a `ubi_queries` document says of a context."""
    return {"context": asdict(context)} if context else {}
