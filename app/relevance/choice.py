"""The relevance model that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.relevance.model import OnnxRelevance
    from app.relevance.remote import RemoteRelevance
    from app.settings import Settings

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def make_relevance(settings: Settings) -> OnnxRelevance | RemoteRelevance | None:
    """Make it, ready to answer; None where the settings want none.

    Raises:
        CheckpointError: its folder cannot be used; the message says what is missing.
        RelevanceError: a remote one, and httpx is not installed.
    """
    if settings.relevance == "none":
        return None
    if settings.relevance == "onnx" and settings.relevance_path is not None:
        from app.relevance.model import OnnxRelevance  # noqa: PLC0415 -- each loads only its own libraries

        return OnnxRelevance(
            settings.relevance_path,
            threads=settings.relevance_threads,
            provider=PROVIDERS[settings.relevance_provider],
        )
    from app.relevance.remote import RemoteRelevance  # noqa: PLC0415 -- as above

    key = settings.relevance_api_key
    return RemoteRelevance(
        settings.relevance_url or "",
        settings.relevance_model or "",
        api_key=key.get_secret_value() if key else None,
    )
