"""The relevance model that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.relevance.model import OnnxRelevance
    from app.relevance.remote import RemoteRelevance
    from app.settings import Settings

DEFAULT_RELEVANCE = Path(__file__).parent / "default"
"""The model that comes with the package."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def make_relevance(settings: Settings) -> OnnxRelevance | RemoteRelevance | None:
    """Make it, ready to answer; None where the settings want none.

    Raises:
        CheckpointError: its folder cannot be used; the message says what is missing.
        RelevanceError: a remote one, and httpx is not installed.
    """
    if settings.relevance == "none":
        return None
    if settings.relevance == "onnx":
        from app.relevance.model import OnnxRelevance  # noqa: PLC0415 -- each loads only its own libraries

        return OnnxRelevance(
            settings.relevance_path,
            threads=settings.relevance_threads,
            provider=PROVIDERS[settings.relevance_provider],
            max_known=settings.relevance_memory_entries,
        )
    from app.relevance.remote import RemoteRelevance  # noqa: PLC0415 -- as above

    key = settings.relevance_api_key
    return RemoteRelevance(
        settings.relevance_url or "",
        settings.relevance_model or "",
        api_key=key.get_secret_value() if key else None,
    )
